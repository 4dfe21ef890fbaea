"""What a step learns from: a purchase drawn from each history, and what was bought before it (SPEC 4.4)."""

import numpy as np
from jaxtyping import Int

from llmsrec.data.sequences import Sequences
from llmsrec.errors import DataError
from llmsrec.training import generator


class Examples:
    """Every user once an epoch; who, when and which purchase is decided by the key and the step alone."""

    def __init__(self, train: Sequences, batch_size: int, *key: int) -> None:
        self.train, self.batch_size, self.key = train, batch_size, key
        self.usable = np.flatnonzero(train.lengths >= 2)
        if len(self.usable) == 0:
            raise DataError("no user has two training purchases: there is nothing to learn from")

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.usable) // self.batch_size)

    def draws(self, step: int) -> np.random.Generator:
        """For all that step number `step` draws besides its users."""
        return generator(*self.key, 1, step)

    def batch(
        self, step: int, draws: np.random.Generator
    ) -> tuple[Sequences, Int[np.ndarray, "users"]]:
        """Histories and what comes next: never a first purchase, whose history is empty (SPEC 6.17)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = generator(*self.key, 0, epoch).permutation(self.usable)
        users = order[place * self.batch_size : (place + 1) * self.batch_size]
        positions = draws.integers(1, self.train.lengths[users])
        return self.train.take(users, positions), self.train.items[
            self.train.offsets[users] + positions
        ]
