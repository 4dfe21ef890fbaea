"""Ranker: all that evaluation knows of a model."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from llmsrec.data.sequences import Sequences


@runtime_checkable  # tests check types at every call
class Ranker(Protocol):
    """Scores every item as the next purchase after each history; column i is item_index i, column 0 is padding."""

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]: ...


@runtime_checkable
class UserEncoder(Ranker, Protocol):
    """A ranker that represents a user by a vector."""

    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users size"]: ...
