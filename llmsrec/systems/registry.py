"""Systems by name. Their settings are a mapping each in the section `systems` of params.yaml."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmsrec.config import from_mapping, read_section
from llmsrec.errors import ConfigError
from llmsrec.student.config import StudentConfig
from llmsrec.student.recipe import RECIPES, Lora, Mode
from llmsrec.systems.alignment import AlignmentConfig
from llmsrec.systems.allmrec import ALLMRec
from llmsrec.systems.counting import Popularity
from llmsrec.systems.language import LanguageRanker, LanguageWriter
from llmsrec.systems.recformer.config import RecformerConfig
from llmsrec.systems.recformer.system import RecformerSystem
from llmsrec.systems.sasrec import SASRecSystem
from llmsrec.systems.system import System
from llmsrec.teacher.train import TeacherConfig

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


def language(name: str, mode: Mode) -> Maker:
    """Settings are what all language models, those of a mode, and this one change of the section `student`."""

    def make(values: Values, params: Path, where: str) -> System:
        shared = read_section("systems", params)["language"]
        values = {**shared["all"], **shared[mode], **values}
        recipe = replace(RECIPES[name], mode=mode)
        if recipe.adapted:
            recipe = replace(recipe, lora=from_mapping(Lora, values.pop("lora"), f"{where}.lora"))
        stage_1 = values.pop("alignment", None)
        score = values.pop("score", None)
        user_slot = recipe.user_slot or values.get("with_user_rep", False)
        values = {**read_section("student", params), **values, "with_user_rep": user_slot}
        config = from_mapping(StudentConfig, values, where)
        recipe = replace(recipe, user_slot=user_slot)
        reading = (
            LanguageRanker(config, recipe)
            if mode == "retrieval"
            else LanguageWriter(config, recipe, score)
        )
        if recipe.codes is None:
            return reading
        return ALLMRec(reading, from_mapping(AlignmentConfig, stage_1, f"{where}.alignment"))

    return make


def recformer(values: Values, _: Path, where: str) -> System:
    return RecformerSystem(from_mapping(RecformerConfig, values, where))


RETRIEVAL: dict[str, Maker] = {
    "popularity": own(Popularity),
    "sasrec": sasrec,
    "gsasrec": sasrec,
    "recformer": recformer,
    **{name: language(name, "retrieval") for name in RECIPES},
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
