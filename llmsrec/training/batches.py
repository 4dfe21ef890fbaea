"""Batches of training histories: inputs, next items and negatives, without a loop over users."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from llmsrec.core.errors import DataError
from llmsrec.data.sequences import Sequences, ranges
from llmsrec.training.seeding import generator

SHORTEST = 8  # rows up to this length share a bucket; longer rows are bucketed by powers of two


@dataclass(frozen=True)
class Bucket:
    """Rows of similar length, left padded with 0. `targets` is the next item at each position that is not padding,
    row by row; `users` is the user of each such position."""

    inputs: Int[Tensor, "rows length"]
    targets: Int[Tensor, "positions"]
    users: Int[np.ndarray, "positions"]


def trainable_users(train: Sequences) -> Int[np.ndarray, "users"]:
    """The users with at least two training purchases; raises DataError if there is none."""
    users = np.flatnonzero(train.lengths >= 2)
    if len(users) == 0:
        raise DataError("no user has two training purchases: there is nothing to train on")
    return users


class Epochs:
    """Batches that visit all of `rows` once an epoch, in an order that depends on the key and the epoch alone."""

    def __init__(self, rows: Int[np.ndarray, "rows"], batch_size: int, *key: int) -> None:
        self.rows, self.batch_size, self.key = rows, batch_size, key
        self._order = (-1, rows)

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return -(-len(self.rows) // self.batch_size)

    def batch(self, step: int) -> Int[np.ndarray, "batch"]:
        """The rows of step number `step` of the whole training, from 0."""
        epoch, step_in_epoch = divmod(step, self.steps)
        if self._order[0] != epoch:
            self._order = (epoch, generator(*self.key, epoch).permutation(self.rows))
        start = step_in_epoch * self.batch_size
        return self._order[1][start : start + self.batch_size]


def epoch_users(
    num_users: int, batch_size: int, sampling: str, generator: np.random.Generator
) -> Iterator[Int[np.ndarray, "batch"]]:
    """The users of each batch of an epoch. `with_replacement` draws num_users // batch_size batches (released code)."""
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
    """A batch of users cut into buckets, so that one long history does not pad the others."""
    rows = train.take(users).last(max_length + 1)
    return [_bucket(rows, users, selected) for selected in length_buckets(rows.lengths - 1)]


def length_buckets(lengths: Int[np.ndarray, "rows"]) -> list[Int[np.ndarray, "..."]]:
    """The rows of each bucket of similar length."""
    sizes = np.ceil(np.log2(np.maximum(lengths, SHORTEST))).astype(np.int64)
    return [np.flatnonzero(sizes == size) for size in np.unique(sizes)]


def _bucket(rows: Sequences, users: Int[np.ndarray, "batch"], selected: np.ndarray) -> Bucket:
    block = rows.take(selected).padded()
    inputs, next_items = block[:, :-1], block[:, 1:]
    is_item = inputs != 0
    owner = np.broadcast_to(users[selected][:, None], inputs.shape)
    targets = torch.from_numpy(next_items[is_item])
    return Bucket(torch.from_numpy(inputs.copy()), targets, owner[is_item])


class NegativeSampler:
    """Draws items that a user has not bought in training, uniformly (specification 6.3)."""

    def __init__(self, train: Sequences, num_items: int) -> None:
        self.num_items = num_items
        rows = np.repeat(np.arange(len(train)), train.lengths)
        self.bought = np.unique(rows * (num_items + 1) + train.items)

    def draw(
        self, users: Int[np.ndarray, "n"], count: int, generator: np.random.Generator
    ) -> Int[np.ndarray, "n count"]:
        """`count` item indices per user; a row may hold an item twice."""
        items = generator.integers(1, self.num_items + 1, size=(len(users), count))
        base = np.repeat(users * (self.num_items + 1), count).reshape(items.shape)
        bought = self._bought_by(np.unique(users))
        taken = _is_in(bought, base + items)
        while taken.any():
            items[taken] = generator.integers(1, self.num_items + 1, size=int(taken.sum()))
            taken[taken] = _is_in(bought, (base + items)[taken])
        return items

    def contains(
        self, users: Int[np.ndarray, "n"], items: Int[np.ndarray, "m"]
    ) -> Bool[np.ndarray, "n m"]:
        """True where the user has bought the item in training."""
        return _is_in(self.bought, users[:, None] * (self.num_items + 1) + items)

    def _bought_by(self, users: Int[np.ndarray, "n"]) -> Int[np.ndarray, "m"]:
        """The keys of these users, sorted as `users` are: few enough for the processor's cache."""
        starts, ends = np.searchsorted(
            self.bought, np.add.outer([0, 1], users) * (self.num_items + 1)
        )
        return self.bought[ranges(starts, ends - starts)[0]]


def _is_in(
    bought: Int[np.ndarray, "m"], keys: Int[np.ndarray, "*shape"]
) -> Bool[np.ndarray, "*shape"]:
    if len(bought) == 0:
        return np.zeros(keys.shape, dtype=bool)
    index = np.minimum(np.searchsorted(bought, keys), len(bought) - 1)
    return np.asarray(bought[index] == keys)
