"""What a compared system is: settings, a network, the stages of its training, and the model that comes of it."""

from collections.abc import Iterator
from dataclasses import dataclass
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
    """What every system learns from. The teacher is frozen; who trains the language model loads one for itself."""

    splits: Splits
    teacher: SASRec
    backbone: Path
    seed: int
    device: torch.device | str = "cpu"

    def language_model(self, *, writes: bool = False) -> Backbone:
        return load_backbone(self.backbone, self.device, with_lm_head=writes)


@dataclass(frozen=True)
class Stage:
    """One training: its trainer starts from what the stages before it left in the network."""

    trainer: Trainer
    plan: TrainingPlan


@runtime_checkable  # tests check types at every call
class Answerer(Protocol):
    """A model that writes the title of the next purchase (mode G)."""

    def answers(
        self, histories: Sequences, candidates: Int[ndarray, "users columns"]
    ) -> Int[ndarray, "users"]:
        """The column of the candidate that it wrote, -1 where it wrote none of them."""


Model = Ranker | Answerer


@runtime_checkable
class System(Protocol):
    """A frozen dataclass of settings."""

    def network(self, given: TrainingInput) -> nn.Module:
        """All that is trained, as it starts: the same for the same seed. What only counts has an empty one."""

    def stages(self, network: Any, given: TrainingInput) -> Iterator[Stage]:
        """Its trainings, in order; each is begun when the one before is over."""

    def model(self, network: Any, given: TrainingInput) -> Model:
        """What the trained network makes of histories."""
