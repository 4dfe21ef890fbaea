"""Ranker: all that evaluation knows of a model."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.data.sequences import Sequences

GATHERED = (
    1 << 19
)  # values of item vectors laid beside their users at a time: 2 MB stay in the processor's cache


@runtime_checkable  # tests check types at every call
class Ranker(Protocol):
    """Scores every item as the next purchase after each history; column i is item_index i, column 0 is padding."""

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]: ...


class VectorRanker(ABC):
    """A ranker whose score is a user's vector times an item's."""

    def __init__(self, item_vectors: Float[Tensor, "indices size"]) -> None:
        self.item_vectors = item_vectors

    @abstractmethod
    def represent(self, histories: Sequences) -> Float[Tensor, "users size"]:
        """On the device of the items' vectors."""

    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users size"]:
        return self.represent(histories).cpu().numpy()

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        return self.products(self.represent(histories))

    def products(self, users: Float[Tensor, "users size"]) -> Float[np.ndarray, "users indices"]:
        return (users @ self.item_vectors.T).cpu().numpy()

    def products_with(
        self, users: Float[Tensor, "users size"], items: Int[np.ndarray, "users columns"]
    ) -> Float[np.ndarray, "users columns"]:
        """What `products` has in these columns, without computing the others."""
        size = max(1, GATHERED // max(1, items.shape[1] * users.shape[1]))
        scores = users.new_empty(items.shape)
        for start in range(0, len(items), size):
            some = torch.from_numpy(items[start : start + size]).to(users.device)
            beside = users[start : start + size, None]
            torch.sum(self.item_vectors[some] * beside, dim=-1, out=scores[start : start + size])
        return scores.cpu().numpy()
