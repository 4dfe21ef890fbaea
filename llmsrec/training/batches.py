"""Batches for the teacher: inputs, next items and negatives, without a loop over users."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from llmsrec.core.errors import DataError
from llmsrec.data.sequences import Sequences
from llmsrec.training.loop import generator

SHORTEST = 8  # rows up to this length share a group; longer ones are grouped by powers of two


@dataclass(frozen=True)
class Bucket:
    """Rows of like length, left padded; `targets` is the item after each real position, in reading order."""

    inputs: Int[Tensor, "rows length"]
    targets: Int[Tensor, "positions"]
    users: Int[np.ndarray, "positions"]


def trainable_users(train: Sequences) -> Int[np.ndarray, "users"]:
    """The users of whom something can be learned: one purchase, and another after it."""
    users = np.flatnonzero(train.lengths >= 2)
    if len(users) == 0:
        raise DataError("no user has two training purchases: there is nothing to learn from")
    return users


class Epochs:
    """All of `rows` once an epoch, in batches; their order is decided by the key and the epoch alone."""

    def __init__(self, rows: Int[np.ndarray, "rows"], batch_size: int, *key: int) -> None:
        self.rows, self.batch_size, self.key = rows, batch_size, key
        self._order = (-1, rows)

    @property
    def steps(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def batch(self, step: int) -> Int[np.ndarray, "batch"]:
        epoch, place = divmod(step, self.steps)
        if self._order[0] != epoch:
            self._order = (epoch, generator(*self.key, epoch).permutation(self.rows))
        return self._order[1][place * self.batch_size : (place + 1) * self.batch_size]


def epoch_users(
    num_users: int, batch_size: int, sampling: str, generator: np.random.Generator
) -> Iterator[Int[np.ndarray, "batch"]]:
    """The users of each batch; `with_replacement` draws num_users // batch_size batches (the released code's)."""
    if sampling == "with_replacement":
        for _ in range(max(1, num_users // batch_size)):
            yield generator.integers(0, num_users, size=min(batch_size, num_users))
        return
    order = generator.permutation(num_users)
    for start in range(0, num_users, batch_size):
        yield order[start : start + batch_size]


def bucket_by_length(
    train: Sequences, users: Int[np.ndarray, "batch"], max_length: int
) -> list[Bucket]:
    """A batch cut into groups of like length, so that one long history does not pad the others."""
    rows = train.take(users).last(max_length + 1)
    return [_group(rows, users, chosen) for chosen in length_buckets(rows.lengths - 1)]


def length_buckets(lengths: Int[np.ndarray, "rows"]) -> list[Int[np.ndarray, "..."]]:
    """Rows of like length together."""
    sizes = np.ceil(np.log2(np.maximum(lengths, SHORTEST))).astype(np.int64)
    return [np.flatnonzero(sizes == size) for size in np.unique(sizes)]


def _group(rows: Sequences, users: Int[np.ndarray, "batch"], chosen: np.ndarray) -> Bucket:
    block = rows.take(chosen).padded()
    inputs, nexts = block[:, :-1], block[:, 1:]
    real = inputs != 0
    owner = np.broadcast_to(users[chosen][:, None], inputs.shape)
    return Bucket(torch.from_numpy(inputs.copy()), torch.from_numpy(nexts[real]), owner[real])


class NegativeSampler:
    """Items that a user has not bought in training, uniform; the next item is one of those it has (SPEC 6.3)."""

    def __init__(self, train: Sequences, num_items: int) -> None:
        self.num_items = num_items
        rows = np.repeat(np.arange(len(train)), train.lengths)
        self.owned = np.unique(rows * (num_items + 1) + train.items)

    def draw(
        self, users: Int[np.ndarray, "n"], count: int, generator: np.random.Generator
    ) -> Int[np.ndarray, "n count"]:
        items = generator.integers(1, self.num_items + 1, size=(len(users), count))
        base = np.repeat(users * (self.num_items + 1), count).reshape(items.shape)
        taken = self._contains(base + items)
        while taken.any():
            items[taken] = generator.integers(1, self.num_items + 1, size=int(taken.sum()))
            taken[taken] = self._contains((base + items)[taken])
        return items

    def contains(
        self, users: Int[np.ndarray, "n"], items: Int[np.ndarray, "m"]
    ) -> Bool[np.ndarray, "n m"]:
        """Which of the items each user has bought in training."""
        return self._contains(users[:, None] * (self.num_items + 1) + items)

    def _contains(self, keys: Int[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
        found = np.minimum(np.searchsorted(self.owned, keys), len(self.owned) - 1)
        return np.asarray(self.owned[found] == keys)
