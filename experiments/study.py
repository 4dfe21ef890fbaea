"""Teachers and students of a store, of several seeds: trained once, then ranked with true and with shuffled histories.

What is trained stays under scratch/students/<dataset>/, so that experiments share it and an interrupted one goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from safetensors.numpy import load_file, save_file

from experiments.trained import PARAMS, student_of, trained_teacher
from llmsrec.comparison.cache_keys import code_of
from llmsrec.comparison.shuffled import ShuffledTraining
from llmsrec.core.config import load_section, read_section
from llmsrec.core.errors import ConfigError
from llmsrec.core.files import atomic_directory
from llmsrec.data.splits import Part, Splits
from llmsrec.evaluation.per_user import (
    PROTOCOLS,
    EvaluationConfig,
    cosine,
    per_user,
    shuffled_histories,
)
from llmsrec.llm.backbone import Backbone, load_backbone
from llmsrec.llm.ranker import RetrievalRanker, encode_items
from llmsrec.ranking.protocol import evaluate
from llmsrec.ranking.ranker import Ranker
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.sasrec import SASRec
from llmsrec.training.checkpoints import fingerprint
from llmsrec.training.distributed import default_device

TRAINED = Path("scratch/students")
TEACHER = "teacher"
FULL = "full"
VARIANTS: dict[str, dict[str, Any]] = {  # what each changes of the section `student`
    FULL: {},
    "no_uniformity": {"uniformity_weight": 0.0},
    "neither": {"uniformity_weight": 0.0, "distillation_weight": 0.0},
    "contrastive": {"distill": "contrastive"},
    "user_vector": {"user_vector_in_prompt": True},
    "last_item": {"examples": "last_item"},
    "auto_regressive": {"examples": "auto_regressive"},
}
SHUFFLE_SEED = 0  # of training histories

Order = Literal["original", "shuffled"]
Values = dict[str, Float[np.ndarray, "..."]]  # original_sampled, shuffled_full, ..., similarity


@dataclass(frozen=True)
class Arm:
    """What is trained once for each seed: the teacher, or a variant of its student."""

    variant: str  # TEACHER, or one of VARIANTS
    train: Order = "original"
    backbone: str = "backbone"  # a folder beside the splits

    def reference(self, variant: str) -> "Arm":
        """What it is set against: the same without what is special of it; `variant` is the plain student."""
        if self.train == "shuffled":
            return replace(self, train="original")
        if self.backbone != "backbone":
            return replace(self, backbone="backbone")
        return replace(self, variant=variant)


class Study:
    """One store and one set of changes to the student's settings."""

    def __init__(self, dataset: str, part: Part, changes: dict[str, Any]) -> None:
        self.dataset, self.part, self.changes = dataset, part, changes
        self.artifacts, self.folder = Path("artifacts") / dataset, TRAINED / dataset
        self.splits = Splits.load(self.artifacts / "splits")
        self.evaluation = load_section(EvaluationConfig, "evaluation")
        if not self.evaluation.shuffles:
            raise ConfigError("evaluation.shuffles is 0; experiments on order need at least 1")
        self._taught: dict[str, Splits] = {
            "original": self.splits,
            "shuffled": ShuffledTraining.of(self.splits, SHUFFLE_SEED),
        }
        self._backbones: dict[str, Backbone] = {}

    def of_seed(self, seed: int, arms: Sequence[Arm]) -> dict[Arm, Values]:
        return {arm: self._values_of(seed, arm) for arm in arms}

    def _values_of(self, seed: int, arm: Arm) -> Values:
        teacher = self._teacher(seed, arm.train)
        if arm.variant == TEACHER:
            return self._rank(SequentialRanker(teacher))
        changes = self.changes | VARIANTS[arm.variant] | {"seed": seed}
        backbone = self._backbone(arm.backbone)
        model, own = student_of(changes, self._taught[arm.train], teacher, backbone, self.folder)
        key = fingerprint(self.part, self.evaluation, code_of(per_user, evaluate))
        kept = own / f"values-{key[:12]}"
        if not kept.exists():
            ranker = RetrievalRanker(model, encode_items(model, self.splits.num_items))
            with atomic_directory(kept) as aside:
                save_file(self._rank(ranker), aside / "values.safetensors")
        return load_file(kept / "values.safetensors")

    def _teacher(self, seed: int, train: Order) -> SASRec:
        values = read_section("teacher", PARAMS) | {"seed": seed}
        taught = self._taught[train]
        return trained_teacher(values, taught, self.folder, name=TEACHER, where=str(PARAMS))

    def _backbone(self, name: str) -> Backbone:
        if name not in self._backbones:
            self._backbones[name] = load_backbone(self.artifacts / name, default_device())
        return self._backbones[name]

    def _rank(self, ranker: Ranker) -> Values:
        """Per user: the metrics with the true and the shuffled history, and how alike the two vectors are."""
        held = self.evaluation.scores_mb
        true = evaluate(ranker, self.splits, self.part, scores_mb=held)
        runs = [
            evaluate(ranker, self.splits, self.part, histories=histories, scores_mb=held)
            for histories in shuffled_histories(self.splits, self.part, self.evaluation)
        ]
        values = {"similarity": np.mean([cosine(true.users, run.users) for run in runs], axis=0)}
        for protocol in PROTOCOLS:
            values[f"original_{protocol}"] = per_user(getattr(true, protocol))
            values[f"shuffled_{protocol}"] = np.mean(
                [per_user(getattr(run, protocol)) for run in runs], axis=0
            )
        return values
