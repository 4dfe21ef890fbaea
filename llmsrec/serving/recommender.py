"""Recommendations from a model bundle: the same answers from a trained folder and from a registered version."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from llmsrec.core.errors import ArtifactError, DataError
from llmsrec.core.files import sha256
from llmsrec.data.catalog import COLUMNS, Catalog
from llmsrec.data.sequences import from_rows
from llmsrec.serving.bundle import CATALOG
from llmsrec.serving.item_embeddings import ItemEmbeddings
from llmsrec.serving.transfer import ranker_for_catalog
from llmsrec.serving.user_kv_cache import UserKVCache
from llmsrec.student.model import LLMSRec
from llmsrec.student.ranker import StudentRanker


@dataclass(frozen=True)
class Recommendation:
    rank: int
    item_id: str
    title: str
    score: float


@dataclass(frozen=True)
class UserHistory:
    """Purchases, oldest first; without moments (ms) each counts as of the store's last day."""

    history: list[str]
    timestamps: list[int] | None = None


@dataclass(frozen=True)
class Recommendations:
    """`unknown` are the items of the history that the bundle does not know; `source` is student or popularity."""

    source: str
    unknown: list[str]
    items: list[Recommendation]


class Recommender:
    """The student over its item vectors; popularity for a shopper of whom nothing is known."""

    def __init__(
        self,
        catalog: Catalog,
        ranker: StudentRanker,
        purchases: Int[np.ndarray, "indices"],
        latest: int,
    ) -> None:
        self.catalog, self.ranker, self.purchases, self.latest = catalog, ranker, purchases, latest

    @classmethod
    def load(
        cls, folder: Path, device: torch.device | str = "cpu", user_cache_mb: float = 0.0
    ) -> "Recommender":
        """`user_cache_mb`: for keys and values of shoppers who come again, which a server wants."""
        if not (folder / "student" / "config.json").exists():
            raise ArtifactError(
                f"{folder} holds no trained student: build it first (`make run` or `dvc repro`)"
            )
        catalog = Catalog.load(folder / CATALOG)
        student = LLMSRec.from_pretrained(folder / "student", catalog=catalog, device=device)
        embeddings = ItemEmbeddings.load(folder / "item_embeddings")
        if embeddings.model != sha256(folder / "student" / "model.safetensors"):
            raise ArtifactError(
                f"{folder / 'item_embeddings'} was made with another student: run `dvc repro`"
            )
        purchases = np.concatenate([np.zeros(1, dtype=np.int64), embeddings.purchases])
        keeps = user_cache_mb and not student.config.user_vector_in_prompt
        kept = UserKVCache(student, user_cache_mb) if keeps else None
        ranker = StudentRanker(student, embeddings.padded, kept.represent if kept else None)
        return cls(catalog, ranker, purchases, embeddings.latest)

    def for_catalog(self, catalog: Catalog) -> StudentRanker:
        """The student before another catalogue."""
        return ranker_for_catalog(self.ranker, self.catalog, catalog)

    def with_new_items(self, new_items: dict[str, str]) -> "Recommender":
        """With items of which no more is known than id and title; what the catalogue has stays as it is."""
        known = set(self.catalog.items["item_id"])
        new = {item_id: title for item_id, title in new_items.items() if item_id not in known}
        if not new:
            return self
        rows = pd.DataFrame("", index=range(len(new)), columns=COLUMNS)
        rows["item_id"], rows["title"] = list(new), list(new.values())
        rows["item_index"] = np.arange(len(known) + 1, len(known) + len(new) + 1)
        catalog = Catalog(pd.concat([self.catalog.items, rows], ignore_index=True))
        purchases = np.concatenate([self.purchases, np.zeros(len(new), dtype=np.int64)])
        return Recommender(catalog, self.for_catalog(catalog), purchases, self.latest)

    def recommend(self, history: list[str], k: int) -> list[Recommendation]:
        """The best k items that are not in the history (oldest first); an unknown item is an error."""
        self.catalog.indices(history)
        return self.answer([UserHistory(history)], k)[0].items

    def answer(self, shoppers: list[UserHistory], k: int) -> list[Recommendations]:
        """As `recommend`, for many; an unknown item is left out and named."""
        if not 1 <= k <= self.catalog.num_items:
            raise DataError(
                f"k is {k}; it must lie between 1 and the {self.catalog.num_items} items"
            )
        seen = [self._seen(shopper) for shopper in shoppers]
        told = [row for row, (items, _) in enumerate(seen) if items]
        histories = from_rows([seen[row][0] for row in told], [seen[row][1] for row in told])
        users = self.ranker.user_vectors(histories)
        answers = []
        for row, shopper in enumerate(shoppers):
            items = seen[row][0]
            scores = self.purchases.astype(np.float32)
            if items:
                place = told.index(row)
                scores = self.ranker.score_users(users[place : place + 1])[0]
            unknown = [item for item in shopper.history if item not in self.catalog]
            source = "student" if items else "popularity"
            answers.append(Recommendations(source, unknown, self._best(scores, items, k)))
        return answers

    def _seen(self, shopper: UserHistory) -> tuple[list[int], list[int]]:
        """Indices and moments of the purchases that the catalogue knows."""
        history, times = shopper.history, shopper.timestamps
        if times is None:
            times = [self.latest] * len(history)
        if len(times) != len(history):
            raise DataError(
                f"{len(times)} timestamps for a history of {len(history)}: give one for each, or none"
            )
        known = [place for place, item in enumerate(history) if item in self.catalog]
        items = self.catalog.indices([history[place] for place in known]).tolist()
        return items, [times[place] for place in known]

    def _best(
        self, scores: Float[np.ndarray, "indices"], bought: list[int], k: int
    ) -> list[Recommendation]:
        scores = np.array(scores)
        scores[[0, *bought]] = -np.inf
        best = np.argsort(-scores, kind="stable")[:k]
        return [
            Recommendation(
                rank,
                self.catalog.item_id(int(item)),
                self.catalog.titles[item],
                round(float(scores[item]), 6),
            )
            for rank, item in enumerate(best, start=1)
            if np.isfinite(scores[item])
        ]
