"""Systems by name, and how each reads its settings: its own, or changes of the section `teacher` or `student`."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from llmsrec.core.config import from_mapping
from llmsrec.core.errors import ConfigError
from llmsrec.llm.variants import VARIANTS, Lora, Mode
from llmsrec.sequential.network import SequenceTraining
from llmsrec.sequential.trainer import TeacherConfig
from llmsrec.student.config import StudentConfig
from llmsrec.systems.alignment import AlignmentConfig
from llmsrec.systems.allmrec import ALLMRec
from llmsrec.systems.bert4rec import BERT4RecConfig, BERT4RecSystem
from llmsrec.systems.causal import CausalSystem
from llmsrec.systems.content import Content, ContentLM
from llmsrec.systems.ctrl import CTRL
from llmsrec.systems.gru4rec import GRU4RecConfig
from llmsrec.systems.hybrid import Hybrid
from llmsrec.systems.item_knn import ItemKNN, Markov, Popularity
from llmsrec.systems.language import LanguageRanker, LanguageWriter
from llmsrec.systems.llm2sasrec import LLM2SASRec
from llmsrec.systems.nextitnet import NextItNetConfig
from llmsrec.systems.overrides import Values, override
from llmsrec.systems.recformer.config import RecformerConfig
from llmsrec.systems.recformer.system import RecformerSystem
from llmsrec.systems.sasrec_text import SASRecText
from llmsrec.systems.schedules import SCHEDULES
from llmsrec.systems.system import System

Sections = Callable[[str], Values]  # a section of params.yaml by its name
Maker = Callable[
    [Values, Sections, str], System
]  # own settings, base sections, where the settings are written


def with_own_settings(kind: type[Any]) -> Maker:
    """A system that reads its own settings only."""
    return lambda values, _, where: from_mapping(kind, values, where)


def teacher(values: Values, base: Sections, where: str) -> TeacherConfig:
    """The section `teacher` with what a system changes in it."""
    return from_mapping(TeacherConfig, override(base("teacher"), values), where)


def sasrec(values: Values, base: Sections, where: str) -> System:
    """A system whose settings are all those of the section `teacher`."""
    return CausalSystem(teacher(values, base, where))


def with_teacher(kind: type[Any]) -> Maker:
    """A system with some settings of its own; its other settings change the section `teacher`."""
    names = {field.name for field in fields(kind)}

    def make(values: Values, base: Sections, where: str) -> System:
        changes = {name: value for name, value in values.items() if name not in names}
        own = {name: value for name, value in values.items() if name in names}
        return from_mapping(kind, own | {"config": teacher(changes, base, where)}, where)

    return make


def with_training(system: Callable[[Any], System], kind: type[SequenceTraining]) -> Maker:
    """A system with settings of its own that takes those of its training from the section `teacher`."""
    return lambda values, base, where: system(
        from_mapping(kind, training(base("teacher")) | values, where)
    )


def language(name: str) -> Maker:
    """A system that reads with the language model; its settings change the section `student`."""

    def make(values: Values, base: Sections, where: str) -> System:
        own = dict(values)
        mode = _choice(own.pop("mode", "retrieval"), MODES[name], f"{where}.mode")
        variant = replace(VARIANTS[name], mode=mode)
        if variant.uses_lora:
            lora = from_mapping(Lora, own.pop("lora", {}), f"{where}.lora")
            variant = replace(variant, lora=lora)
        alignment, score = own.pop("alignment", {}), own.pop("score", None)
        schedules = SCHEDULES.get(name, ("joint",))
        schedule = own.pop("schedule", None) if name in SCHEDULES else "joint"
        schedule = _choice(schedule, schedules, f"{where}.schedule")
        section = override(base("student"), own)
        if not variant.distils:  # what their prompts show is fixed
            section["user_vector_in_prompt"] = variant.user_vector
        variant = replace(variant, user_vector=section["user_vector_in_prompt"])
        config = from_mapping(StudentConfig, section, where)
        parts = {"config": config, "variant": variant, "schedule": schedule}
        reading: LanguageRanker | LanguageWriter
        if mode == "retrieval":
            reading = from_mapping(LanguageRanker, parts, where)
        else:
            reading = from_mapping(LanguageWriter, parts | {"score": score}, where)
        if variant.code_size is None:
            return reading
        return ALLMRec(reading, from_mapping(AlignmentConfig, alignment, f"{where}.alignment"))

    return make


def _choice(value: Any, options: tuple[Any, ...], where: str) -> Any:
    if value not in options:
        raise ConfigError(f"{where} is {value!r}; choose from {', '.join(options)}")
    return value


def recformer(values: Values, _: Sections, where: str) -> System:
    return RecformerSystem(from_mapping(RecformerConfig, values, where))


def training(section: Values) -> Values:
    """What the section `teacher` says of any training over sequences."""
    shared = {field.name for field in fields(SequenceTraining)}
    return {name: value for name, value in section.items() if name in shared}


MODES: dict[str, tuple[Mode, ...]] = {
    name: ("retrieval",) if variant.distils else ("retrieval", "generation")
    for name, variant in VARIANTS.items()
}
SYSTEMS: dict[str, Maker] = {
    "popularity": with_own_settings(Popularity),
    "markov": with_own_settings(Markov),
    "item_knn": with_own_settings(ItemKNN),
    "content": with_own_settings(Content),
    "content_lm": with_own_settings(ContentLM),
    "hybrid": with_own_settings(Hybrid),
    "sasrec": sasrec,
    "gru4rec": with_training(CausalSystem, GRU4RecConfig),
    "nextitnet": with_training(CausalSystem, NextItNetConfig),
    "bert4rec": with_training(BERT4RecSystem, BERT4RecConfig),
    "sasrec_text": with_teacher(SASRecText),
    "ctrl": with_teacher(CTRL),
    "llm2sasrec": with_teacher(LLM2SASRec),
    "recformer": recformer,
    **{name: language(name) for name in VARIANTS},
}


def system_of(name: str, values: Values, base: Sections, where: str) -> System:
    """The system of this name. `values` are its own settings, written at `where`; `base` reads params.yaml.

    Raises ConfigError for an unknown system and for a wrong setting."""
    if name not in SYSTEMS:
        raise ConfigError(f"there is no system '{name}'; there are: {', '.join(SYSTEMS)}")
    return SYSTEMS[name](values, base, where)
