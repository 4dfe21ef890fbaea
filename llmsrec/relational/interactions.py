"""The interactions of a dataset as tables: the output of parsing and the input of the splits."""

from dataclasses import dataclass
from pathlib import Path

import ibis
import pyarrow.parquet as pq

from llmsrec.core.parquet import reading_parquet

PARTS = ["train", "valid", "test"]


@dataclass(frozen=True)
class Interactions:
    """`rows`: user_id, item_id, timestamp (ms UTC), rating, source_order (row number over all files, with gaps where
    duplicates were dropped), part (of a ready split: 0, 1, 2, else null), position (in the user's history, from 0).
    `items`: item_id and its texts, nulls allowed."""

    rows: ibis.Table
    items: ibis.Table

    @classmethod
    def load(cls, folder: Path, connection: ibis.BaseBackend | None = None) -> "Interactions":
        """The tables of a folder; ArtifactError if a file is missing or damaged."""
        connection = connection or ibis.duckdb.connect(memory_limit="1GB")
        tables = []
        for name in ("interactions.parquet", "items.parquet"):
            with reading_parquet(folder / name):
                pq.read_metadata(folder / name)
            tables.append(connection.read_parquet(folder / name))
        return cls(*tables)
