"""The items as the recommender sees them, in a Parquet table for other systems, such as a vector database.

A recommendation's score is the dot product of a user's and an item's `vector`, plus that of their sparse vectors of
words. The weights of the parts are contained in the item vectors.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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
    dense = {
        "teacher": teacher.item_table.cpu().numpy(),
        "student": fitted.item_vectors,
    }
    dense = {name: fitted.weights[name] * dense[name] for name in dense if name in fitted.weights}
    matrix = np.concatenate(list(dense.values()), axis=1)[1:].astype(np.float32)
    ends = np.cumsum([part.shape[1] for part in dense.values()]).tolist()
    columns: dict[str, Any] = {
        "parent_asin": catalog.items["item_id"].tolist(),
        "title": catalog.titles[1:],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1]),
        "purchases": fitted.purchases[1:],
    }
    manifest: dict[str, Any] = {
        **digests,
        "items": len(catalog),
        "latest": fitted.latest,
        "dtype": "float32",
        "dimensions": matrix.shape[1],
        "parts": dict(zip(dense, map(list, zip([0, *ends], ends, strict=False)), strict=True)),
        "weights": fitted.weights,
    }
    if "content" in fitted.weights:
        ranker = ContentRanker.fit(catalog, fitted.content_last)
        words = ranker.items[1:]
        words.sort_indices()
        offsets = pa.array(words.indptr, pa.int32())
        weights = (fitted.weights["content"] * words.data).astype(np.float32)
        columns["words"] = pa.ListArray.from_arrays(offsets, pa.array(words.indices, pa.int32()))
        columns["word_weights"] = pa.ListArray.from_arrays(offsets, pa.array(weights))
        manifest["words"] = ranker.vectorizer.get_feature_names_out().tolist()
    with atomic_directory(folder) as staging:
        pq.write_table(pa.table(columns), staging / "items.parquet")
        manifest["sha256"] = sha256(staging / "items.parquet")
        (staging / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
