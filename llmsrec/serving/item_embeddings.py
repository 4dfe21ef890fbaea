"""The items as the recommender sees them, in a Parquet table for other systems, such as a vector database.

A recommendation's score is the dot product of a user's and an item's `vector`, plus that of their sparse vectors of
words. The weights of the parts are contained in the item vectors.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from llmsrec.core.files import atomic_directory, sha256
from llmsrec.data.catalog import Catalog
from llmsrec.recommender.content import ContentRanker
from llmsrec.recommender.fitted import FittedRecommender
from llmsrec.sequential.sasrec import SASRec


def export_items(
    fitted: FittedRecommender,
    teacher: SASRec,
    catalog: Catalog,
    folder: Path,
    digests: dict[str, str],
) -> None:
    """Write items.parquet and manifest.json; row r is item_index r + 1.

    The manifest names the columns of `vector` that belong to each part, and the words of the sparse vectors."""
    dense, parts = _dense(fitted, teacher)
    sparse, words = _sparse(fitted, catalog)
    table = {
        "parent_asin": catalog.items["item_id"].tolist(),
        "title": catalog.titles[1:],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(dense.ravel()), dense.shape[1]),
        "purchases": fitted.purchases[1:],
        **sparse,
    }
    with atomic_directory(folder) as staging:
        pq.write_table(pa.table(table), staging / "items.parquet")
        manifest = {
            **digests,
            "items": len(catalog),
            "latest": fitted.latest,
            "dtype": "float32",
            "dimensions": dense.shape[1],
            "parts": parts,
            "weights": fitted.weights,
            "words": words,
            "sha256": sha256(staging / "items.parquet"),
        }
        (staging / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _dense(
    fitted: FittedRecommender, teacher: SASRec
) -> tuple[Float[np.ndarray, "items size"], dict[str, list[int]]]:
    """The weighted vectors of teacher and student side by side, and the first and last column + 1 of each."""
    tables = {"teacher": teacher.item_table.cpu().numpy(), "student": fitted.item_vectors}
    blocks, parts, start = [np.empty((len(fitted.item_vectors), 0))], {}, 0
    for name, table in tables.items():
        if name in fitted.weights:
            blocks.append(fitted.weights[name] * table)
            parts[name] = [start, start + table.shape[1]]
            start += table.shape[1]
    return np.concatenate(blocks, axis=1)[1:].astype(np.float32), parts


def _sparse(
    fitted: FittedRecommender, catalog: Catalog
) -> tuple[dict[str, pa.ListArray], list[str]]:
    """The weighted vectors of words as lists of columns and values, and the word of each column."""
    if "content" not in fitted.weights:
        return {}, []
    ranker = ContentRanker.fit(catalog, fitted.content_last)
    rows = ranker.items[1:]
    rows.sort_indices()
    offsets = pa.array(rows.indptr, pa.int32())
    values = (fitted.weights["content"] * rows.data).astype(np.float32)
    columns = {"words": pa.array(rows.indices, pa.int32()), "word_weights": pa.array(values)}
    lists = {name: pa.ListArray.from_arrays(offsets, flat) for name, flat in columns.items()}
    return lists, ranker.vectorizer.get_feature_names_out().tolist()
