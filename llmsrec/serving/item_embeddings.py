"""The vectors of all items as a Parquet table."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from llmsrec.core.errors import ArtifactError
from llmsrec.core.files import atomic_directory, read_json, sha256
from llmsrec.data.splits import Splits
from llmsrec.llm.ranker import encode_items
from llmsrec.student.model import LLMSRec


@dataclass(frozen=True)
class ItemEmbeddings:
    """Row r is item_index r + 1; `model` and `data` are hashes of the student and of the catalog.

    `purchases` counts training interactions, for users with an empty history; `latest` is the last timestamp (ms), for
    histories without timestamps."""

    item_ids: list[str]
    titles: list[str]
    matrix: Float[np.ndarray, "items size"]
    purchases: Int[np.ndarray, "items"]
    latest: int
    model: str
    data: str

    @property
    def padded(self) -> Float[np.ndarray, "indices size"]:
        """The vectors by item_index; row 0 is 0."""
        return np.concatenate([np.zeros((1, self.matrix.shape[1]), self.matrix.dtype), self.matrix])

    def save(self, folder: Path) -> None:
        """items.parquet (parent_asin, title, vector, purchases) and manifest.json."""
        size = self.matrix.shape[1]
        flat = pa.array(self.matrix.astype(np.float32).ravel())
        table = pa.table(
            {
                "parent_asin": self.item_ids,
                "title": self.titles,
                "vector": pa.FixedSizeListArray.from_arrays(flat, size),
                "purchases": self.purchases,
            }
        )
        with atomic_directory(folder) as aside:
            pq.write_table(table, aside / "items.parquet")
            manifest = {
                "model": self.model,
                "data": self.data,
                "items": len(self.item_ids),
                "latest": self.latest,
                "dimensions": size,
                "dtype": "float32",
                "sha256": sha256(aside / "items.parquet"),
            }
            (aside / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "ItemEmbeddings":
        """Raises ArtifactError if the table does not match the hash of its manifest."""
        manifest = read_json(folder / "manifest.json")
        if sha256(folder / "items.parquet") != manifest["sha256"]:
            raise ArtifactError(
                f"{folder / 'items.parquet'} does not match its manifest: rerun the export"
            )
        table = pq.read_table(folder / "items.parquet")
        vectors = table["vector"].combine_chunks()
        return cls(
            table["parent_asin"].to_pylist(),
            table["title"].to_pylist(),
            vectors.values.to_numpy().reshape(len(table), manifest["dimensions"]),
            table["purchases"].to_numpy(),
            manifest["latest"],
            manifest["model"],
            manifest["data"],
        )


def encode_catalog(
    model: LLMSRec, splits: Splits, *, model_digest: str, data_digest: str
) -> ItemEmbeddings:
    """Encode every item with the student."""
    catalog = splits.catalog
    return ItemEmbeddings(
        item_ids=catalog.items["item_id"].tolist(),
        titles=catalog.titles[1:],
        matrix=encode_items(model, catalog.num_items)[1:],
        purchases=np.bincount(splits.train.items, minlength=splits.num_items + 1)[1:],
        latest=int(splits.sequences.timestamps.max()),
        model=model_digest,
        data=data_digest,
    )
