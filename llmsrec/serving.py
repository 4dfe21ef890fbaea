"""A trained folder, artifacts/<dataset>/, that recommends."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.errors import ArtifactError, DataError
from llmsrec.evaluation.baselines import Popularity
from llmsrec.evaluation.ranker import Ranker
from llmsrec.files import sha256
from llmsrec.student.embeddings import ItemEmbeddings
from llmsrec.student.model import LLMSRec
from llmsrec.student.ranker import StudentRanker


@dataclass(frozen=True)
class Recommendation:
    rank: int
    item_id: str
    title: str
    score: float


class Recommender:
    """The student over its exported item vectors; popularity for a shopper of whom nothing is known."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "student" / "config.json").exists():
            raise ArtifactError(
                f"{folder} holds no trained student: build it first (`make run` or `dvc repro`)"
            )
        self.splits = Splits.load(folder / "splits")
        student = LLMSRec.from_pretrained(folder / "student", catalog=self.splits.catalog)
        embeddings = ItemEmbeddings.load(folder / "item_embeddings")
        if embeddings.model != sha256(folder / "student" / "model.safetensors"):
            raise ArtifactError(
                f"{folder / 'item_embeddings'} was made with another student: run `dvc repro`"
            )
        self.student: Ranker = StudentRanker(student, embeddings.padded)
        self.popularity: Ranker = Popularity(self.splits)
        # A typed history has no dates; the prompt shows the store's last training day for each.
        self.now = int(self.splits.sequences.timestamps.max())

    def recommend(self, history: list[str], k: int) -> list[Recommendation]:
        """The best k items that are not in the history (oldest first)."""
        catalog = self.splits.catalog
        if not 1 <= k <= catalog.num_items:
            raise DataError(f"k is {k}; it must lie between 1 and the {catalog.num_items} items")
        items = catalog.indices(history)
        rows = Sequences(np.array([0, len(items)]), items, np.full(len(items), self.now))
        scores = np.array((self.student if history else self.popularity).score(rows)[0])
        scores[0] = scores[items] = -np.inf
        best = np.argsort(-scores, kind="stable")[:k]
        return [
            Recommendation(
                rank,
                catalog.item_id(int(item)),
                catalog.titles[item],
                round(float(scores[item]), 6),
            )
            for rank, item in enumerate(best, start=1)
            if np.isfinite(scores[item])
        ]
