"""Catalog: the ids and texts of items by index; index 0 is padding, so items are 1..num_items."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from llmsrec.core.errors import DataError
from llmsrec.core.files import atomic_write
from llmsrec.core.parquet import read_parquet

COLUMNS = ["item_index", "item_id", "title", "description", "brand", "category"]


@dataclass(frozen=True)
class Catalog:
    """`items` has the columns above; row r is item_index r + 1; texts are never null."""

    items: pd.DataFrame

    def __post_init__(self) -> None:
        if list(self.items.columns) != COLUMNS:
            raise DataError(f"the catalog has columns {list(self.items.columns)}, not {COLUMNS}")

    def __len__(self) -> int:
        return len(self.items)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._index_of

    @property
    def num_items(self) -> int:
        return len(self.items)

    @cached_property
    def titles(self) -> list[str]:
        """By item_index; the title of the padding is empty."""
        return ["", *self.items["title"].tolist()]

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return dict(zip(self.items["item_id"], self.items["item_index"].tolist(), strict=True))

    def indices(self, item_ids: Iterable[str]) -> Int[np.ndarray, "n"]:
        """The indices of these ids; DataError names an unknown one."""
        indices = []
        for item_id in item_ids:
            if item_id not in self._index_of:
                raise DataError(f"item '{item_id}' is not in the catalog of {len(self)} items")
            indices.append(self._index_of[item_id])
        return np.array(indices, dtype=np.int64)

    def item_id(self, item_index: int) -> str:
        """The id of an index; DataError if it is not in 1..num_items."""
        if not 1 <= item_index <= len(self):
            raise DataError(f"item_index {item_index} is not in 1..{len(self)} (0 is padding)")
        return str(self.items["item_id"].iat[item_index - 1])

    def save(self, path: Path) -> None:
        with atomic_write(path) as temporary:
            self.items.to_parquet(temporary, index=False)

    @classmethod
    def load(cls, path: Path) -> "Catalog":
        return cls(read_parquet(path))
