"""A dataset whose training histories lost their order (specification E2, E3)."""

from dataclasses import dataclass, fields

import numpy as np

from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits


@dataclass(frozen=True)
class ShuffledTraining(Splits):
    """The same splits with each training history permuted once; evaluated histories keep their order."""

    shuffle_seed: int

    @classmethod
    def of(cls, splits: Splits, seed: int) -> "ShuffledTraining":
        values = {field.name: getattr(splits, field.name) for field in fields(splits)}
        return cls(**values, shuffle_seed=seed)

    @property
    def train(self) -> Sequences:
        return super().train.shuffled(np.random.default_rng(self.shuffle_seed))
