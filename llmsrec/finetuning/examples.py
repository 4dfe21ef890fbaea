"""Training examples (specification 3): parts of training histories with a read-out after one purchase or several."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from llmsrec.data.sequences import Sequences, ranges
from llmsrec.training.batches import trainable_users


@dataclass(frozen=True)
class Examples:
    """Prompts and their read-outs.

    Row r shows the purchases starts[r]..stops[r] of user `users[r]` and has a read-out after each but the first
    `skipped[r]`. Read-outs are numbered row by row: those of row r are offsets[r]..offsets[r + 1]."""

    train: Sequences
    users: Int[np.ndarray, "rows"]
    starts: Int[np.ndarray, "rows"]
    stops: Int[np.ndarray, "rows"]
    skipped: Int[np.ndarray, "rows"]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def num_read_outs(self) -> Int[np.ndarray, "rows"]:
        return self.stops - self.starts - self.skipped

    @property
    def offsets(self) -> Int[np.ndarray, "bounds"]:
        return np.concatenate([[0], np.cumsum(self.num_read_outs)]).astype(np.int64)

    def read_outs(self, rows: Int[np.ndarray, "batch"]) -> Int[np.ndarray, "read_outs"]:
        """The numbers of the read-outs of these rows."""
        return ranges(self.offsets[rows], self.num_read_outs[rows])[0]

    def histories(self, rows: Int[np.ndarray, "batch"]) -> Sequences:
        """The purchases that these rows show."""
        indices, offsets = ranges(
            self.train.offsets[self.users[rows]] + self.starts[rows],
            self.stops[rows] - self.starts[rows],
        )
        return Sequences(offsets, self.train.items[indices], self.train.timestamps[indices])

    def read_out_users(self) -> Int[np.ndarray, "read_outs"]:
        """The user of each read-out."""
        return np.repeat(self.users, self.num_read_outs)

    def history_lengths(self) -> Int[np.ndarray, "read_outs"]:
        """How many purchases of the user precede the target of each read-out."""
        return ranges(self.starts + self.skipped + 1, self.num_read_outs)[0]

    def targets(self) -> Int[np.ndarray, "read_outs"]:
        """The item that follows each read-out."""
        return self.train.items[self.train.offsets[self.read_out_users()] + self.history_lengths()]


def training_examples(
    train: Sequences, kind: str, window: int, *, stride: int, one_read_out_per_row: bool
) -> Examples:
    """The rows of an epoch. Raises DataError if no user has two purchases.

    `last_item`: the target is each user's last training purchase. `auto_regressive`: every purchase but the first is a
    target. A user's first `window` purchases share a row. A longer history continues in rows of a whole window, with
    read-outs after the last `stride` purchases of each: with stride 1, the prompts of inference; with more, the same
    read-outs in fewer rows, each of which sees at least window - stride + 1 purchases."""
    users = trainable_users(train)
    lengths = train.lengths[users] - 1  # without the last target
    if kind == "last_item":
        starts = np.maximum(lengths - window, 0)
        return Examples(train, users, starts, lengths, lengths - starts - 1)
    if one_read_out_per_row:
        stops, _ = ranges(np.ones_like(lengths), lengths)
        starts = np.maximum(stops - window, 0)
        return Examples(train, np.repeat(users, lengths), starts, stops, stops - starts - 1)
    first_stops = np.minimum(lengths, window)
    num_more = -(-(lengths - first_stops) // stride)
    number, _ = ranges(np.zeros_like(num_more), num_more)
    before = np.repeat(first_stops, num_more) + number * stride
    stops = np.minimum(before + stride, np.repeat(lengths, num_more))
    starts = stops - window
    zeros = np.zeros_like(users)
    return Examples(
        train,
        np.concatenate([users, np.repeat(users, num_more)]),
        np.concatenate([zeros, starts]),
        np.concatenate([first_stops, stops]),
        np.concatenate([zeros, before - starts]),
    )
