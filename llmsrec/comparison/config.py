"""What is compared: the section `comparison` of params.yaml, and the trainings that it asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmsrec.core.config import Count, Share
from llmsrec.core.errors import ConfigError
from llmsrec.llm.variants import Mode
from llmsrec.systems.registry import GENERATION, RETRIEVAL

Order = Literal["original", "shuffled"]
KNOWN = {"retrieval": RETRIEVAL, "generation": GENERATION}


@dataclass(frozen=True)
class ComparisonConfig:
    datasets: tuple[str, ...]
    systems: tuple[str, ...]
    modes: tuple[Mode, ...]
    orders: tuple[Order, ...]
    seeds: tuple[int, ...]
    shuffle_seed: int
    generation_users: Count | None
    reference: str
    pairs: Literal["reference", "all"]
    bootstrap: Count
    alpha: Share

    def __post_init__(self) -> None:
        for name in ("systems", "modes", "orders", "seeds"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name} is empty: there is nothing to compare")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names one twice: {', '.join(map(str, values))}")


@dataclass(frozen=True)
class Arm:
    """One training of one system."""

    system: str
    mode: Mode
    order: Order  # of the histories that it is trained on
    seed: int

    @property
    def name(self) -> str:
        """Its folder in the system's."""
        return f"{self.mode}-{self.order}-{self.seed}"


def arms_of(config: ComparisonConfig, systems: Sequence[str] | None = None) -> list[Arm]:
    """All trainings of `systems` (of all that are compared), in the modes that each of them has."""
    systems = config.systems if systems is None else systems
    known = list(dict.fromkeys([*RETRIEVAL, *GENERATION]))
    for system in systems:
        if system not in known:
            raise ConfigError(f"there is no system '{system}'; there are: {', '.join(known)}")
    arms = [
        Arm(system, mode, order, seed)
        for system in systems
        for mode in config.modes
        if system in KNOWN[mode]
        for order in config.orders
        for seed in config.seeds
    ]
    if not arms:
        raise ConfigError(
            f"none of {', '.join(systems)} has a mode of {', '.join(config.modes)}: there is nothing to train"
        )
    return arms
