"""Histories of many users as ragged arrays: one flat array and offsets, without padding."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Sequences:
    """Row u is items[offsets[u]:offsets[u + 1]], oldest first; timestamps are ms UTC."""

    offsets: Int[np.ndarray, "bounds"]  # one more than there are rows
    items: Int[np.ndarray, "n"]
    timestamps: Int[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Int[np.ndarray, "length"]:
        return self.items[self.offsets[row] : self.offsets[row + 1]]

    def times(self, row: int) -> Int[np.ndarray, "length"]:
        return self.timestamps[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Int[np.ndarray, "rows"]:
        return np.diff(self.offsets)

    @property
    def row_indices(self) -> Int[np.ndarray, "n"]:
        """The row of each entry of `items`."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(
        self, rows: Int[np.ndarray, "m"], ends: Int[np.ndarray, "m"] | None = None
    ) -> "Sequences":
        """These rows, each cut to its first `ends` items."""
        ends = self.lengths[rows] if ends is None else ends
        indices, offsets = ranges(self.offsets[rows], ends)
        return Sequences(offsets, self.items[indices], self.timestamps[indices])

    def last(self, count: int) -> "Sequences":
        """Each row cut to its last `count` items."""
        lengths = np.minimum(self.lengths, count)
        indices, offsets = ranges(self.offsets[1:] - lengths, lengths)
        return Sequences(offsets, self.items[indices], self.timestamps[indices])

    def padded(self, length: int | None = None) -> Int[np.ndarray, "rows length"]:
        """The last `length` items (default: of the longest row), left padded with 0."""
        length = int(self.lengths.max(initial=0)) if length is None else length
        tail = self.last(length)
        matrix = np.zeros((len(self), length), dtype=np.int64)
        columns = np.arange(len(tail.items)) - np.repeat(tail.offsets[1:], tail.lengths) + length
        matrix[tail.row_indices, columns] = tail.items
        return matrix

    def shuffled(self, generator: np.random.Generator, last: int | None = None) -> "Sequences":
        """The `last` items of each row (default: all) permuted; timestamps stay in place (specification E2, E4)."""
        from_end = np.repeat(self.offsets[1:], self.lengths) - np.arange(len(self.items))
        movable = from_end <= (len(self.items) if last is None else last)
        key = np.where(movable, generator.random(len(self.items)), -from_end)
        order = np.lexsort((key, self.row_indices))
        return Sequences(self.offsets, self.items[order], self.timestamps)


def from_rows(rows: list[list[int]], timestamps: list[list[int]] | None = None) -> Sequences:
    """Sequences from Python lists; timestamps default to 0."""
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    items = np.array([item for row in rows for item in row], dtype=np.int64)
    if timestamps is None:
        return Sequences(offsets, items, np.zeros_like(items))
    return Sequences(
        offsets, items, np.array([t for row in timestamps for t in row], dtype=np.int64)
    )


def ranges(
    starts: Int[np.ndarray, "m"], lengths: Int[np.ndarray, "m"]
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "m+1"]]:
    """The indices start..start+length of all rows, concatenated, and the offset of each row in them."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths), offsets
