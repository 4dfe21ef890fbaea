"""The examples of a step: a purchase drawn from each history, and the purchases before it (specification 4.4)."""

import numpy as np
from jaxtyping import Int

from llmsrec.data.sequences import Sequences
from llmsrec.training.batches import Epochs, trainable_users
from llmsrec.training.seeding import generator


class Examples:
    """Every user once an epoch; users, order and purchases are decided by the key and the step."""

    def __init__(self, train: Sequences, batch_size: int, *key: int) -> None:
        self.train, self.key = train, key
        self.epochs = Epochs(trainable_users(train), batch_size, *key, 0)

    @property
    def steps_per_epoch(self) -> int:
        return self.epochs.steps

    def draws(self, step: int) -> np.random.Generator:
        """The generator of all other draws of step `step`."""
        return generator(*self.key, 1, step)

    def batch(
        self, step: int, draws: np.random.Generator
    ) -> tuple[Sequences, Int[np.ndarray, "users"]]:
        """Histories and their next items; a first purchase has no history and is no target (specification 6.17)."""
        users = self.epochs.batch(step)
        positions = draws.integers(1, self.train.lengths[users])
        targets = self.train.items[self.train.offsets[users] + positions]
        return self.train.take(users, positions), targets
