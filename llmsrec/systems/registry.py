"""Systems by name. Their settings are a mapping each in the section `systems` of params.yaml."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from llmsrec.config import from_mapping, read_section
from llmsrec.errors import ConfigError
from llmsrec.systems.counting import Popularity
from llmsrec.systems.recformer.config import RecformerConfig
from llmsrec.systems.recformer.system import RecformerSystem
from llmsrec.systems.sasrec import SASRecSystem
from llmsrec.systems.system import System
from llmsrec.teacher.train import TeacherConfig

Mode = Literal["retrieval", "generation"]
Values = dict[str, Any]
Maker = Callable[[Values, Path, str], System]  # settings, params.yaml, where the settings stand


def own(kind: type[Any]) -> Maker:
    """A system whose settings are its own."""
    return lambda values, _, where: from_mapping(kind, values, where)


def sasrec(values: Values, params: Path, where: str) -> System:
    """Settings are what it changes of the section `teacher`."""
    return SASRecSystem(
        from_mapping(TeacherConfig, read_section("teacher", params) | values, where)
    )


def recformer(values: Values, _: Path, where: str) -> System:
    return RecformerSystem(from_mapping(RecformerConfig, values, where))


RETRIEVAL: dict[str, Maker] = {
    "popularity": own(Popularity),
    "sasrec": sasrec,
    "gsasrec": sasrec,
    "recformer": recformer,
}
GENERATION: dict[str, Maker] = {}


def system_of(name: str, mode: Mode, params: Path) -> System:
    """The system with the settings of `params`."""
    known = RETRIEVAL if mode == "retrieval" else GENERATION
    if name not in known:
        raise ConfigError(f"there is no system '{name}' for {mode}; there are: {', '.join(known)}")
    values = read_section("systems", params)
    return known[name](values.get(name) or {}, params, f"{params}: systems.{name}")
