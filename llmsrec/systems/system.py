"""A system: settings, a network, the stages of its training, and the trained model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from numpy import ndarray
from torch import nn

from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import Backbone, load_backbone
from llmsrec.ranking.ranker import Ranker
from llmsrec.sequential.sasrec import SASRec
from llmsrec.training.loop import Trainer, TrainingPlan


@dataclass(frozen=True)
class TrainingInput:
    """What every system is trained on. The teacher is frozen; a system that trains the language model loads its own.

    `models` are the trained parts of a hybrid by name."""

    splits: Splits
    teacher: SASRec
    backbone: Path
    seed: int
    device: torch.device | str = "cpu"
    models: Mapping[str, Ranker] = field(default_factory=dict)

    def language_model(self, *, writes: bool = False) -> Backbone:
        return load_backbone(self.backbone, self.device, with_lm_head=writes)


@dataclass(frozen=True)
class Stage:
    """One training; its trainer starts from the network as earlier stages left it."""

    trainer: Trainer
    plan: TrainingPlan


@runtime_checkable  # tests check types at every call
class Answerer(Protocol):
    """A model that writes the title of the next purchase."""

    def answers(
        self, histories: Sequences, candidates: Int[ndarray, "users columns"]
    ) -> Int[ndarray, "users"]:
        """The column of the candidate whose title was written, -1 where it is none of them."""


Model = Ranker | Answerer


@runtime_checkable
class System(Protocol):
    """A frozen dataclass of settings."""

    def network(self, inputs: TrainingInput) -> nn.Module:
        """All that is trained, at its start: the same for the same seed. A system that only counts has an empty one."""

    def stages(self, network: Any, inputs: TrainingInput) -> Iterator[Stage]:
        """The trainings in order; each starts when the one before has ended."""

    def model(self, network: Any, inputs: TrainingInput) -> Model:
        """The model of the trained network."""
