"""The protocols by which evaluation uses a model, and a ranker that computes no user vector twice."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from llmsrec.data.sequences import Sequences


@runtime_checkable  # tests check types at every call
class Ranker(Protocol):
    """Scores every item as the next one after each history; column i is item_index i, column 0 is padding."""

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]: ...


@runtime_checkable
class VectorRanker(Ranker, Protocol):
    """A ranker whose score is the dot product of a user vector and an item vector."""

    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users size"]: ...

    def score_users(
        self, users: Float[np.ndarray, "users size"]
    ) -> Float[np.ndarray, "users indices"]: ...

    def score_candidates(
        self, users: Float[np.ndarray, "users size"], items: Int[np.ndarray, "users columns"]
    ) -> Float[np.ndarray, "users columns"]: ...


class CachedRanker(VectorRanker):
    """The same ranker, which represents each history once, however often it is scored."""

    def __init__(self, ranker: VectorRanker) -> None:
        self.ranker = ranker
        self._vectors: dict[tuple[bytes, bytes], np.ndarray] = {}

    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users size"]:
        keys = [
            (histories[row].tobytes(), histories.times(row).tobytes())
            for row in range(len(histories))
        ]
        rows = {key: row for row, key in enumerate(keys) if key not in self._vectors}
        if rows or not keys:
            new = self.ranker.user_vectors(histories.take(np.array([*rows.values()], np.int64)))
            self._vectors.update(zip(rows, new, strict=True))
        return np.stack([self._vectors[key] for key in keys]) if keys else new

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        return self.score_users(self.user_vectors(histories))

    def score_users(
        self, users: Float[np.ndarray, "users size"]
    ) -> Float[np.ndarray, "users indices"]:
        return self.ranker.score_users(users)

    def score_candidates(
        self, users: Float[np.ndarray, "users size"], items: Int[np.ndarray, "users columns"]
    ) -> Float[np.ndarray, "users columns"]:
        return self.ranker.score_candidates(users, items)


def cached(ranker: Ranker) -> Ranker:
    """The ranker with its user vectors cached, if it has some."""
    return CachedRanker(ranker) if isinstance(ranker, VectorRanker) else ranker
