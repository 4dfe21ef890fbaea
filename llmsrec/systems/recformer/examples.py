"""What a step learns from: a purchase drawn from each history, and what was bought before it (SPEC 4.4)."""

import numpy as np
from jaxtyping import Int

from llmsrec.data.sequences import Sequences
from llmsrec.training.batches import Epochs, trainable_users
from llmsrec.training.seeding import generator


class Examples:
    """Every user once an epoch; who, when and which purchase is decided by the key and the step alone."""

    def __init__(self, train: Sequences, batch_size: int, *key: int) -> None:
        self.train, self.key = train, key
        self.epochs = Epochs(trainable_users(train), batch_size, *key, 0)

    @property
    def steps_per_epoch(self) -> int:
        return self.epochs.steps

    def draws(self, step: int) -> np.random.Generator:
        """For all that step number `step` draws besides its users."""
        return generator(*self.key, 1, step)

    def batch(
        self, step: int, draws: np.random.Generator
    ) -> tuple[Sequences, Int[np.ndarray, "users"]]:
        """Histories and what comes next: never a first purchase, whose history is empty (SPEC 6.17)."""
        users = self.epochs.batch(step)
        positions = draws.integers(1, self.train.lengths[users])
        targets = self.train.items[self.train.offsets[users] + positions]
        return self.train.take(users, positions), targets
