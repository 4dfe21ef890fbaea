"""Studies as studies/params.yaml describes them: variants of systems, training orders and seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from llmsrec.core.config import Count, Share, from_mapping, read_section
from llmsrec.core.errors import ConfigError
from llmsrec.systems.overrides import override

T = TypeVar("T")
PARAMS, STUDIES = Path("params.yaml"), Path("studies/params.yaml")
OWN_SECTIONS = ("pipeline", "protocol", "studies", "systems")
Order = Literal["original", "shuffled"]


@dataclass(frozen=True)
class Protocol:
    """The section `protocol`: how every study trains, evaluates and tests."""

    shuffle_seed: int
    generation_users: Count | None
    pairs: Literal["reference", "all"]
    bootstrap: Count
    alpha: Share


@dataclass(frozen=True)
class Run:
    """One training of one variant. `order` is that of the training histories."""

    system: str
    order: Order
    seed: int

    @property
    def name(self) -> str:
        """Its folder in the variant's."""
        return f"{self.order}-{self.seed}"


@dataclass(frozen=True)
class StudyConfig:
    """An entry of the section `studies`. `reference` is the variant that the others are tested against."""

    summary: str
    systems: tuple[str, ...]
    orders: tuple[Order, ...]
    seeds: tuple[int, ...]
    reference: str

    def __post_init__(self) -> None:
        for name in ("systems", "orders", "seeds"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name} is empty: there is nothing to train")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has a duplicate: {', '.join(map(str, values))}")

    @property
    def runs(self) -> list[Run]:
        """Every variant with every order and seed."""
        return [
            Run(system, order, seed)
            for system in self.systems
            for order in self.orders
            for seed in self.seeds
        ]


@dataclass(frozen=True)
class Settings:
    """The sections of params.yaml and of studies/params.yaml; `changes` apply to one call."""

    changes: dict[str, Any] = field(default_factory=dict)

    def section(self, name: str) -> dict[str, Any]:
        """A section as a mapping, with its changes."""
        return override(read_section(name, _file(name)), self.changes.get(name, {}))

    def load(self, cls: type[T], name: str) -> T:
        """A section as an object of `cls`."""
        return from_mapping(cls, self.section(name), f"{_file(name)}: {name}")

    def study(self, name: str, changes: Mapping[str, Any]) -> StudyConfig:
        """A study by its name. Raises ConfigError for unknown studies and variants."""
        values = {**self.entry("studies", name), **changes}
        study = from_mapping(StudyConfig, values, f"{STUDIES}: studies.{name}")
        for system in study.systems:
            self.entry("systems", system)
        return study

    def entry(self, section: str, name: str) -> dict[str, Any]:
        """An entry of the section `studies` or `systems`. Raises ConfigError if it does not exist."""
        entries = self.section(section)
        if name not in entries:
            raise ConfigError(f"{STUDIES} has no {section}.{name}; it has: {', '.join(entries)}")
        return dict(entries[name] or {})


def _file(section: str) -> Path:
    return STUDIES if section in OWN_SECTIONS else PARAMS


def settings_of(texts: Sequence[str]) -> Settings:
    """Settings with `section.key=value` changes, as in `student.epochs=5`; values are YAML."""
    changes: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        *sections, key = path.split(".")
        if not (equals and sections and key):
            raise ConfigError(f"'{text}' is no change; expected section.key=value")
        place = changes
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = yaml.safe_load(value)
    return Settings(changes)
