"""The teacher as a ranker: the state after the last purchase times every item's embedding."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.data.sequences import Sequences
from llmsrec.ranking.ranker import VectorRanker
from llmsrec.sequential.network import SequenceNetwork

GATHERED = 1 << 19  # values laid beside their users at a time: 2 MB stay in the cache


class DotProductRanker(VectorRanker):
    """Products of vectors, and what each item has for everyone; computed where the items' vectors are."""

    def __init__(
        self,
        item_vectors: Float[Tensor, "indices size"],
        bias: Float[Tensor, "indices"] | None = None,
    ) -> None:
        self.item_vectors, self.bias = item_vectors, bias

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        return self.score_users(self.user_vectors(histories))

    def score_users(
        self, users: Float[np.ndarray, "users size"]
    ) -> Float[np.ndarray, "users indices"]:
        scores = self._beside(users) @ self.item_vectors.T
        return (scores if self.bias is None else scores + self.bias).cpu().numpy()

    def score_candidates(
        self, users: Float[np.ndarray, "users size"], items: Int[np.ndarray, "users columns"]
    ) -> Float[np.ndarray, "users columns"]:
        vectors = self._beside(users)
        size = max(1, GATHERED // max(1, items.shape[1] * users.shape[1]))
        scores = vectors.new_empty(items.shape)
        for start in range(0, len(items), size):
            part = slice(start, start + size)
            some = self.item_vectors[torch.from_numpy(items[part]).to(scores.device)]
            torch.sum(some * vectors[part, None], dim=-1, out=scores[part])
        if self.bias is not None:
            scores += self.bias[torch.from_numpy(items).to(scores.device)]
        return scores.cpu().numpy()

    def _beside(self, users: Float[np.ndarray, "users size"]) -> Float[Tensor, "users size"]:
        return torch.from_numpy(users).to(self.item_vectors.device)


class SequentialRanker(DotProductRanker):
    """A user's vector is its state alone: a constant in it would make all users alike (SPEC E5)."""

    def __init__(self, model: SequenceNetwork) -> None:
        bias = model.output_bias
        super().__init__(model.item_table, None if bias is None else bias.detach())
        self.model = model

    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users size"]:
        return self.model.represent(histories).cpu().numpy()
