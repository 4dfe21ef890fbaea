"""Splits: the validated artefact that teacher, student and evaluation share (specification 1 and 2).

Each user's purchases are stored once, in order; a split says how many of them are training data and which positions are
targets. The history of a target is what precedes it: train for valid, train + valid for test.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from llmsrec.core.files import atomic_directory
from llmsrec.core.parquet import read_parquet, reading_parquet
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences

Part = Literal["valid", "test"]
HELD_OUT: tuple[Part, ...] = ("valid", "test")


@dataclass(frozen=True)
class Targets:
    """Held-out purchases: row r is purchase `positions[r]` of user `users[r]`."""

    users: Int[np.ndarray, "targets"]
    positions: Int[np.ndarray, "targets"]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Candidates:
    """The items that every system ranks: a target and its negatives, in a stored random order (specification 2)."""

    rows: Int[np.ndarray, "evaluated"]  # of the evaluated targets in Targets, sorted
    items: Int[np.ndarray, "evaluated candidates"]
    target_columns: Int[np.ndarray, "evaluated"]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def targets(self) -> Int[np.ndarray, "evaluated"]:
        return self.items[np.arange(len(self)), self.target_columns]

    def take(self, indices: Int[np.ndarray, "selected"]) -> "Candidates":
        """Some of the evaluated targets."""
        return Candidates(self.rows[indices], self.items[indices], self.target_columns[indices])


@dataclass(frozen=True)
class Splits:
    """The catalog, the users' histories, and the targets and candidates of valid and test."""

    catalog: Catalog
    user_ids: list[str]
    sequences: Sequences  # row u: all purchases of user u
    train_lengths: Int[np.ndarray, "users"]
    targets: dict[Part, Targets]
    candidates: dict[Part, Candidates]  # for retrieval
    generation_candidates: dict[Part, Candidates]  # for generation: titles pairwise different

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return self.catalog.num_items

    @property
    def train(self) -> Sequences:
        """The training purchases of each user."""
        return self.sequences.take(np.arange(self.num_users), self.train_lengths)

    def histories(self, part: Part) -> Sequences:
        """The purchases before each evaluated target of `part`, in the order of its candidates."""
        evaluated = self.evaluated(part)
        return self.sequences.take(evaluated.users, evaluated.positions)

    def evaluated(self, part: Part) -> Targets:
        """The targets that have candidates."""
        targets, rows = self.targets[part], self.candidates[part].rows
        return Targets(targets.users[rows], targets.positions[rows])

    def save(self, folder: Path) -> None:
        """Write the splits to a folder, replacing it atomically."""
        with atomic_directory(folder) as staging:
            self.catalog.save(staging / "items.parquet")
            users = {"user_id": self.user_ids, "train_length": self.train_lengths}
            _write(users, staging / "users.parquet")
            interactions = {
                "user_index": self.sequences.row_indices,
                "item_index": self.sequences.items,
                "timestamp": self.sequences.timestamps,
            }
            _write(interactions, staging / "interactions.parquet")
            for part in HELD_OUT:
                targets = self.targets[part]
                columns = {"user_index": targets.users, "position": targets.positions}
                _write(columns, staging / f"{part}_targets.parquet")
                file = staging / f"{part}_candidates_retrieval.parquet"
                _write_candidates(self.candidates[part], file)
                file = staging / f"{part}_candidates_generation.parquet"
                _write_candidates(self.generation_candidates[part], file)

    @classmethod
    def load(cls, folder: Path) -> "Splits":
        """The splits of a folder; ArtifactError if a file is missing or damaged."""
        interactions = read_parquet(folder / "interactions.parquet")
        users = read_parquet(folder / "users.parquet")
        counts = np.bincount(interactions["user_index"], minlength=len(users))
        return cls(
            catalog=Catalog.load(folder / "items.parquet"),
            user_ids=users["user_id"].tolist(),
            sequences=Sequences(
                np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
                interactions["item_index"].to_numpy(),
                interactions["timestamp"].to_numpy(),
            ),
            train_lengths=users["train_length"].to_numpy(),
            targets={part: _read_targets(folder / f"{part}_targets.parquet") for part in HELD_OUT},
            candidates={
                part: _read_candidates(folder / f"{part}_candidates_retrieval.parquet")
                for part in HELD_OUT
            },
            generation_candidates={
                part: _read_candidates(folder / f"{part}_candidates_generation.parquet")
                for part in HELD_OUT
            },
        )


def _write(columns: dict[str, Any], file: Path) -> None:
    pd.DataFrame(columns).to_parquet(file, index=False)


def _read_targets(file: Path) -> Targets:
    table = read_parquet(file)
    return Targets(table["user_index"].to_numpy(), table["position"].to_numpy())


def _write_candidates(candidates: Candidates, file: Path) -> None:
    """The same bytes as pandas would write, without one array per row of `items`."""
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


def _read_candidates(file: Path) -> Candidates:
    with reading_parquet(file):
        table = pq.read_table(file)
    rows, columns = (np.array(table[name]) for name in ("target_row", "target_column"))
    flat = table["item_indices"].combine_chunks().flatten()
    items = flat.to_numpy(zero_copy_only=False, writable=True)
    return Candidates(rows, items.reshape(len(rows), -1 if len(rows) else 0), columns)
