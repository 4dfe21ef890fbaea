"""What the student is taught on: stretches of training histories, each read after one purchase or several (SPEC 3)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from llmsrec.data.sequences import Sequences, ranges
from llmsrec.training.batches import trainable_users


@dataclass(frozen=True)
class Examples:
    """Row r shows user `users[r]` the purchases starts[r]..stops[r] of training, and is read after each of them but the
    first `first[r]`. Read-outs are numbered through, row by row: row r has offsets[r]..offsets[r + 1]."""

    train: Sequences
    users: Int[np.ndarray, "rows"]
    starts: Int[np.ndarray, "rows"]
    stops: Int[np.ndarray, "rows"]
    first: Int[np.ndarray, "rows"]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def num_reads(self) -> Int[np.ndarray, "rows"]:
        return self.stops - self.starts - self.first

    @property
    def offsets(self) -> Int[np.ndarray, "bounds"]:
        return np.concatenate([[0], np.cumsum(self.num_reads)]).astype(np.int64)

    def reads(self, rows: Int[np.ndarray, "batch"]) -> Int[np.ndarray, "reads"]:
        """The read-outs of these rows."""
        return ranges(self.offsets[rows], self.num_reads[rows])[0]

    def histories(self, rows: Int[np.ndarray, "batch"]) -> Sequences:
        where, offsets = ranges(
            self.train.offsets[self.users[rows]] + self.starts[rows],
            self.stops[rows] - self.starts[rows],
        )
        return Sequences(offsets, self.train.items[where], self.train.timestamps[where])

    def owners(self) -> Int[np.ndarray, "reads"]:
        """The user of each read-out."""
        return np.repeat(self.users, self.num_reads)

    def ends(self) -> Int[np.ndarray, "reads"]:
        """How many purchases the user has made by each read-out; the next one is to be found."""
        return ranges(self.starts + self.first + 1, self.num_reads)[0]

    def targets(self) -> Int[np.ndarray, "reads"]:
        return self.train.items[self.train.offsets[self.owners()] + self.ends()]


def training_examples(
    train: Sequences, kind: str, window: int, *, stride: int, alone: bool
) -> Examples:
    """`last_item`: the last training purchase of each user. `auto_regressive`: every one but the first.

    Up to the window, all prompts of a user grow out of one another and share a row. A longer history goes on with rows
    of a whole window, each read after its last `stride` purchases: with 1, exactly what is shown when it recommends;
    with more, the same read-outs in a fraction of the rows, each seeing window - stride + 1 purchases at least.
    Prompts that must stand `alone` have a row each."""
    usable = trainable_users(train)
    known = train.lengths[usable] - 1
    if kind == "last_item":
        starts = np.maximum(known - window, 0)
        return Examples(train, usable, starts, known, known - starts - 1)
    if alone:
        users = np.repeat(usable, known)
        stops, _ = ranges(np.ones_like(known), known)
        starts = np.maximum(stops - window, 0)
        return Examples(train, users, starts, stops, stops - starts - 1)
    grown = np.minimum(known, window)
    rows = -(-(known - grown) // stride)
    users, begun = np.repeat(usable, rows), np.repeat(grown, rows)
    number, _ = ranges(np.zeros_like(rows), rows)
    stops = np.minimum(begun + (number + 1) * stride, np.repeat(known, rows))
    starts = stops - window
    first = begun + number * stride - starts
    return Examples(
        train,
        np.concatenate([usable, users]),
        np.concatenate([np.zeros_like(usable), starts]),
        np.concatenate([grown, stops]),
        np.concatenate([np.zeros_like(usable), first]),
    )
