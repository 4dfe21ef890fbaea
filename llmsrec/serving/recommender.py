"""Recommendations from a model bundle or from the artifacts of a dataset."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from llmsrec.core.errors import ArtifactError
from llmsrec.core.files import sha256
from llmsrec.data.catalog import COLUMNS, Catalog
from llmsrec.data.sequences import Sequences, from_rows
from llmsrec.recommender.fitted import FittedRecommender, Parts
from llmsrec.recommender.hybrid import HybridRanker
from llmsrec.serving.bundle import CATALOG
from llmsrec.serving.requests import NewItems, UserHistory, number_of_items, user_history
from llmsrec.serving.transfer import parts_for_catalog, shared_items
from llmsrec.serving.user_kv_cache import UserKVCache
from llmsrec.student.model import LLMSRec

CHUNK = 64  # users whose scores of all items are in memory


@dataclass(frozen=True)
class Recommendation:
    rank: int
    item_id: str
    title: str
    score: float


@dataclass(frozen=True)
class Recommendations:
    """`unknown` are the items of the history that are not in the catalog; `source` is recommender or popularity."""

    source: str
    unknown: list[str]
    items: list[Recommendation]


class Recommender:
    """Recommends by the weighted parts, or by popularity to a user without known items."""

    def __init__(self, catalog: Catalog, parts: Parts, fitted: FittedRecommender) -> None:
        self.catalog, self.parts, self.fitted = catalog, parts, fitted
        self.ranker = HybridRanker(parts.by_name(), fitted.weights)

    @classmethod
    def load(
        cls, folder: Path, device: torch.device | str = "cpu", user_cache_mb: float = 0.0
    ) -> "Recommender":
        """`user_cache_mb`: memory for the KV cache of returning users, for servers.

        Raises ArtifactError if the folder has no recommender or has one of another student."""
        if not (folder / "recommender" / "config.json").exists():
            raise ArtifactError(
                f"{folder} holds no trained recommender: build it first (`make run` or `dvc repro`)"
            )
        catalog = Catalog.load(folder / CATALOG)
        student = LLMSRec.from_pretrained(folder / "student", catalog=catalog, device=device)
        fitted = FittedRecommender.load(folder / "recommender")
        if fitted.student != sha256(folder / "student" / "model.safetensors"):
            raise ArtifactError(
                f"{folder / 'recommender'} was made with another student: run `dvc repro`"
            )
        use_cache = user_cache_mb and not student.config.user_vector_in_prompt
        cache = UserKVCache(student, user_cache_mb) if use_cache else None
        return cls(
            catalog, fitted.parts(student, catalog, cache.represent if cache else None), fitted
        )

    def for_catalog(self, catalog: Catalog) -> "Recommender":
        """A recommender of the items of another catalog; items that it does not share count as never bought."""
        purchases = np.zeros(len(catalog) + 1, dtype=np.int64)
        old, new = shared_items(self.catalog, catalog)
        purchases[new] = self.fitted.purchases[old]
        parts = parts_for_catalog(self.parts, self.catalog, catalog)
        vectors = parts.student.item_vectors.cpu().numpy()
        fitted = replace(self.fitted, purchases=purchases, item_vectors=vectors)
        return Recommender(catalog, parts, fitted)

    def with_new_items(self, added: NewItems) -> "Recommender":
        """A recommender with additional items; items of the catalog stay unchanged."""
        old = set(self.catalog.items["item_id"])
        pairs = zip(added.new_items, added.new_titles, strict=True)
        new = {item_id: title for item_id, title in pairs if item_id not in old}
        if not new:
            return self
        rows = pd.DataFrame("", index=range(len(new)), columns=COLUMNS)
        rows["item_id"], rows["title"] = list(new), list(new.values())
        rows["item_index"] = np.arange(len(old) + 1, len(old) + len(new) + 1)
        return self.for_catalog(Catalog(pd.concat([self.catalog.items, rows], ignore_index=True)))

    def recommend(self, history: Sequence[str], k: int) -> list[Recommendation]:
        """The best k items that are not in the history (item ids, oldest first).

        Raises DataError for an unknown item and for a wrong `history` or `k`."""
        user = user_history({"history": history}, "recommend")
        self.catalog.indices(user.history)
        return self.recommend_batch([user], k)[0].items

    def recommend_batch(self, users: Sequence[UserHistory], k: int) -> list[Recommendations]:
        """`recommend` for several users; unknown items are ignored and listed in the result."""
        k = number_of_items(k, self.catalog.num_items)
        known = [self._known_items(user) for user in users]
        rows = [row for row, (items, _) in enumerate(known) if items]
        histories = from_rows([known[row][0] for row in rows], [known[row][1] for row in rows])
        scores = self._scores(histories)
        popularity = self.fitted.purchases.astype(np.float32)
        recommendations = []
        for user, (items, _) in zip(users, known, strict=True):
            best = self._best(next(scores) if items else popularity, items, k)
            unknown = [item for item in user.history if item not in self.catalog]
            source = "recommender" if items else "popularity"
            recommendations.append(Recommendations(source, unknown, best))
        return recommendations

    def _scores(self, histories: Sequences) -> Iterator[Float[np.ndarray, "indices"]]:
        """A row of scores for each history, computed CHUNK users at a time."""
        for start in range(0, len(histories), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(histories)))
            yield from self.ranker.score(histories.take(rows))

    def _known_items(self, user: UserHistory) -> tuple[list[int], list[int]]:
        """Indices and timestamps of the items that are in the catalog."""
        history = user.history
        times = user.timestamps or [self.fitted.latest] * len(history)
        places = [place for place, item in enumerate(history) if item in self.catalog]
        items = self.catalog.indices([history[place] for place in places]).tolist()
        return items, [times[place] for place in places]

    def _best(
        self, scores: Float[np.ndarray, "indices"], history: list[int], k: int
    ) -> list[Recommendation]:
        scores = np.array(scores)
        scores[[0, *history]] = -np.inf
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
