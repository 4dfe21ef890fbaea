"""A store whose training histories lost their order (SPEC E2, E3)."""

from dataclasses import dataclass, fields

import numpy as np

from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits


@dataclass(frozen=True)
class ShuffledTraining(Splits):
    """The same store, each training history permuted once; what is evaluated is as ever (SPEC E2, all stages)."""

    shuffle_seed: int

    @classmethod
    def of(cls, splits: Splits, seed: int) -> "ShuffledTraining":
        kept = {field.name: getattr(splits, field.name) for field in fields(splits)}
        return cls(**kept, shuffle_seed=seed)

    @property
    def train(self) -> Sequences:
        return super().train.shuffled(np.random.default_rng(self.shuffle_seed))
