"""Systems by name. Their settings are a mapping each in the section `systems` of params.yaml."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from llmsrec.config import from_mapping, read_section
from llmsrec.errors import ConfigError
from llmsrec.systems.causal import CausalSystem
from llmsrec.systems.counting import ItemKNN, Popularity
from llmsrec.systems.gru4rec import GRU4RecConfig
from llmsrec.systems.nextitnet import NextItNetConfig
from llmsrec.systems.system import System
from llmsrec.teacher.causal import CausalTraining, SequenceTraining
from llmsrec.teacher.train import TeacherConfig

Mode = Literal["retrieval", "generation"]
Values = dict[str, Any]
Maker = Callable[[Values, Path, str], System]  # settings, params.yaml, where the settings stand


def own(kind: type[Any]) -> Maker:
    """A system whose settings are its own."""
    return lambda values, _, where: from_mapping(kind, values, where)


def sasrec(values: Values, params: Path, where: str) -> System:
    """Settings are what it changes of the section `teacher`."""
    return CausalSystem(
        from_mapping(TeacherConfig, read_section("teacher", params) | values, where)
    )


def causal(kind: type[CausalTraining]) -> Maker:
    """Settings are its own, and what it changes of the training in the section `teacher`."""
    return lambda values, params, where: CausalSystem(
        from_mapping(kind, training(params) | values, where)
    )


def training(params: Path) -> Values:
    """What the section `teacher` says of any training over sequences."""
    section = read_section("teacher", params)
    shared = {field.name for field in fields(SequenceTraining)}
    return {name: value for name, value in section.items() if name in shared}


RETRIEVAL: dict[str, Maker] = {
    "popularity": own(Popularity),
    "item_knn": own(ItemKNN),
    "sasrec": sasrec,
    "gsasrec": sasrec,
    "esasrec": sasrec,
    "gru4rec": causal(GRU4RecConfig),
    "nextitnet": causal(NextItNetConfig),
}
GENERATION: dict[str, Maker] = {}


def system_of(name: str, mode: Mode, params: Path) -> System:
    """The system with the settings of `params`."""
    known = RETRIEVAL if mode == "retrieval" else GENERATION
    if name not in known:
        raise ConfigError(f"there is no system '{name}' for {mode}; there are: {', '.join(known)}")
    values = read_section("systems", params)
    return known[name](values.get(name) or {}, params, f"{params}: systems.{name}")
