"""Systems by name. Their settings are a mapping each in the section `systems` of params.yaml."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from llmsrec.core.config import from_mapping, read_section
from llmsrec.core.errors import ConfigError
from llmsrec.llm.variants import VARIANTS, Lora, Mode
from llmsrec.sequential.network import SequenceTraining
from llmsrec.sequential.trainer import TeacherConfig
from llmsrec.student.config import StudentConfig
from llmsrec.systems.alignment import AlignmentConfig
from llmsrec.systems.allmrec import ALLMRec
from llmsrec.systems.bert4rec import BERT4RecConfig, BERT4RecSystem
from llmsrec.systems.causal import CausalSystem
from llmsrec.systems.ctrl import CTRL
from llmsrec.systems.gru4rec import GRU4RecConfig
from llmsrec.systems.item_knn import ItemKNN, Popularity
from llmsrec.systems.language import LanguageRanker, LanguageWriter
from llmsrec.systems.nextitnet import NextItNetConfig
from llmsrec.systems.recformer.config import RecformerConfig
from llmsrec.systems.recformer.system import RecformerSystem
from llmsrec.systems.sasrec_text import SASRecText
from llmsrec.systems.schedules import SCHEDULES, Schedule
from llmsrec.systems.system import System

Values = dict[str, Any]
Maker = Callable[[Values, Path, str], System]  # settings, params.yaml, where the settings stand


def own(kind: type[Any]) -> Maker:
    """A system whose settings are its own."""
    return lambda values, _, where: from_mapping(kind, values, where)


def teacher(values: Values, params: Path, where: str) -> TeacherConfig:
    """The section `teacher` with what a system changes of it."""
    return from_mapping(TeacherConfig, read_section("teacher", params) | values, where)


def sasrec(values: Values, params: Path, where: str) -> System:
    """All settings are the teacher's."""
    return CausalSystem(teacher(values, params, where))


def with_teacher(kind: type[Any]) -> Maker:
    """Some settings are its own, the others what it changes of the section `teacher`."""
    names = {field.name for field in fields(kind)}

    def make(values: Values, params: Path, where: str) -> System:
        changed = {name: value for name, value in values.items() if name not in names}
        own = {name: value for name, value in values.items() if name in names}
        return from_mapping(kind, own | {"config": teacher(changed, params, where)}, where)

    return make


def trained(system: Callable[[Any], System], kind: type[SequenceTraining]) -> Maker:
    """Settings are its own, and what it changes of the training in the section `teacher`."""
    return lambda values, params, where: system(
        from_mapping(kind, training(params) | values, where)
    )


def language(name: str, mode: Mode) -> Maker:
    """Settings are what all language models, those of a mode, and this one change of the section `student`."""

    def make(values: Values, params: Path, where: str) -> System:
        shared = read_section("systems", params)["language"]
        values = {**shared["all"], **shared[mode], **values}
        variant = replace(VARIANTS[name], mode=mode)
        if variant.uses_lora:
            lora = values.pop("lora", {})
            lora = from_mapping(Lora, shared["shared_lora"] or lora, f"{where}.lora")
            variant = replace(variant, lora=lora)
        stage_1, score = values.pop("alignment", {}), values.pop("score", None)
        schedule = _schedule(name, values, where)
        user_vector = variant.user_vector or values.get("user_vector_in_prompt", False)
        values = {**read_section("student", params), **values, "user_vector_in_prompt": user_vector}
        config = from_mapping(StudentConfig, values, where)
        own = {
            "config": config,
            "variant": replace(variant, user_vector=user_vector),
            "schedule": schedule,
        }
        reading: LanguageRanker | LanguageWriter
        if mode == "retrieval":
            reading = from_mapping(LanguageRanker, own, where)
        else:
            reading = from_mapping(LanguageWriter, own | {"score": score}, where)
        if variant.code_size is None:
            return reading
        return ALLMRec(reading, from_mapping(AlignmentConfig, stage_1, f"{where}.alignment"))

    return make


def _schedule(name: str, values: Values, where: str) -> Schedule:
    """Of those systems that have one beside the paper's."""
    if name not in SCHEDULES:
        return "joint"
    chosen: Schedule = values.pop("schedule", None)
    if chosen not in SCHEDULES[name]:
        raise ConfigError(
            f"{where}.schedule is {chosen!r}; choose from {', '.join(SCHEDULES[name])}"
        )
    return chosen


def recformer(values: Values, _: Path, where: str) -> System:
    return RecformerSystem(from_mapping(RecformerConfig, values, where))


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
    "gru4rec": trained(CausalSystem, GRU4RecConfig),
    "nextitnet": trained(CausalSystem, NextItNetConfig),
    "bert4rec": trained(BERT4RecSystem, BERT4RecConfig),
    "sasrec_text": with_teacher(SASRecText),
    "ctrl": with_teacher(CTRL),
    "recformer": recformer,
    **{name: language(name, "retrieval") for name in VARIANTS},
}
GENERATION: dict[str, Maker] = {
    name: language(name, "generation") for name in ("tallrec", "llara", "collm", "allmrec")
}


def system_of(name: str, mode: Mode, params: Path) -> System:
    """The system with the settings of `params`."""
    known = RETRIEVAL if mode == "retrieval" else GENERATION
    if name not in known:
        raise ConfigError(f"there is no system '{name}' for {mode}; there are: {', '.join(known)}")
    values = read_section("systems", params)
    return known[name](values.get(name) or {}, params, f"{params}: systems.{name}")
