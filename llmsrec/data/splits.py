"""Splits: the validated artefact that teacher, student and evaluation share.

A user's purchases stand once, in order; a split says how many of them train, and which positions are targets.
So the history of a target is simply what stands before it: train for valid, train + valid for test (SPEC 1, 2).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from llmsrec.core.files import atomic_directory, read_frame, reading_parquet
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences

Part = Literal["valid", "test"]


@dataclass(frozen=True)
class Targets:
    """Held-out purchases: row r is purchase `positions[r]` of user `users[r]`."""

    users: Int[np.ndarray, "targets"]
    positions: Int[np.ndarray, "targets"]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Candidates:
    """What every system ranks for a target: the target and its negatives, in a stored random order (SPEC 2)."""

    rows: Int[np.ndarray, "evaluated"]  # into Targets: the evaluated ones, sorted
    items: Int[np.ndarray, "evaluated candidates"]
    target_columns: Int[np.ndarray, "evaluated"]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def targets(self) -> Int[np.ndarray, "evaluated"]:
        return self.items[np.arange(len(self)), self.target_columns]

    def take(self, some: Int[np.ndarray, "some"]) -> "Candidates":
        return Candidates(self.rows[some], self.items[some], self.target_columns[some])


@dataclass(frozen=True)
class Splits:
    catalog: Catalog
    user_ids: list[str]
    sequences: Sequences  # row u: all kept purchases of user u
    train_lengths: Int[np.ndarray, "users"]
    targets: dict[Part, Targets]
    candidates: dict[Part, Candidates]  # mode R: retrieval
    generation_candidates: dict[Part, Candidates]  # mode G: titles pairwise different

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return self.catalog.num_items

    @property
    def train(self) -> Sequences:
        return self.sequences.take(np.arange(self.num_users), self.train_lengths)

    def histories(self, part: Part) -> Sequences:
        """What is known before each evaluated target of `part`, in the order of its candidates."""
        evaluated = self.evaluated(part)
        return self.sequences.take(evaluated.users, evaluated.positions)

    def evaluated(self, part: Part) -> Targets:
        """The targets that have candidates."""
        targets, rows = self.targets[part], self.candidates[part].rows
        return Targets(targets.users[rows], targets.positions[rows])

    def save(self, folder: Path) -> None:
        with atomic_directory(folder) as aside:
            self.catalog.save(aside / "items.parquet")
            pd.DataFrame({"user_id": self.user_ids, "train_length": self.train_lengths}).to_parquet(
                aside / "users.parquet", index=False
            )
            users = np.repeat(np.arange(self.num_users), self.sequences.lengths)
            pd.DataFrame(
                {
                    "user_index": users,
                    "item_index": self.sequences.items,
                    "timestamp": self.sequences.timestamps,
                }
            ).to_parquet(aside / "interactions.parquet", index=False)
            for part in ("valid", "test"):
                _save_part(aside, part, self)

    @classmethod
    def load(cls, folder: Path) -> "Splits":
        interactions = read_frame(folder / "interactions.parquet")
        users = read_frame(folder / "users.parquet")
        parts = {part: _load_part(folder, part) for part in ("valid", "test")}
        catalog = Catalog.load(folder / "items.parquet")
        counts = np.bincount(interactions["user_index"], minlength=len(users))
        return cls(
            catalog=catalog,
            user_ids=users["user_id"].tolist(),
            sequences=Sequences(
                np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
                interactions["item_index"].to_numpy(),
                interactions["timestamp"].to_numpy(),
            ),
            train_lengths=users["train_length"].to_numpy(),
            targets={part: loaded[0] for part, loaded in parts.items()},  # type: ignore[misc]
            candidates={part: loaded[1] for part, loaded in parts.items()},  # type: ignore[misc]
            generation_candidates={part: loaded[2] for part, loaded in parts.items()},  # type: ignore[misc]
        )


def _save_part(folder: Path, part: Part, splits: Splits) -> None:
    targets = splits.targets[part]
    pd.DataFrame({"user_index": targets.users, "position": targets.positions}).to_parquet(
        folder / f"{part}_targets.parquet", index=False
    )
    for mode, candidates in (
        ("retrieval", splits.candidates[part]),
        ("generation", splits.generation_candidates[part]),
    ):
        _write_candidates(candidates, folder / f"{part}_candidates_{mode}.parquet")


def _write_candidates(candidates: Candidates, file: Path) -> None:
    """As pandas would, but the items as they lie: in a frame each row of them would be an array of its own."""
    rows, width = candidates.items.shape
    frame = pd.DataFrame(
        {"target_row": candidates.rows, "target_column": candidates.target_columns}
    )
    first = frame[:1].assign(item_indices=list(candidates.items[:1]))
    schema = pa.Table.from_pandas(first, preserve_index=False).schema
    starts = pa.array(np.arange(rows + 1) * width, pa.int32())
    items = pa.ListArray.from_arrays(starts, candidates.items.ravel())
    columns = [candidates.rows, candidates.target_columns, items if rows else pa.nulls(0)]
    pq.write_table(pa.table(columns, schema=schema), file)


def _load_part(folder: Path, part: str) -> tuple[Targets, Candidates, Candidates]:
    targets = read_frame(folder / f"{part}_targets.parquet")

    def candidates(mode: str) -> Candidates:
        file = folder / f"{part}_candidates_{mode}.parquet"
        with reading_parquet(file):
            table = pq.read_table(file)
        rows, columns = (np.array(table[name]) for name in ("target_row", "target_column"))
        listed = table["item_indices"].combine_chunks().flatten()
        items = listed.to_numpy(zero_copy_only=False, writable=True)
        return Candidates(rows, items.reshape(len(rows), -1 if len(rows) else 0), columns)

    return (
        Targets(targets["user_index"].to_numpy(), targets["position"].to_numpy()),
        candidates("retrieval"),
        candidates("generation"),
    )
