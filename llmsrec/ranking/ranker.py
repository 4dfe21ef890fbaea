"""The protocols by which evaluation uses a model."""

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
