"""Rankers by dot product, and a sequential network as one: the last state times the output table."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.data.sequences import Sequences
from llmsrec.ranking.ranker import VectorRanker
from llmsrec.sequential.network import SequenceNetwork

GATHERED_VALUES = 1 << 19  # item vector values gathered at a time: 2 MB fit the CPU cache


class DotProductRanker(VectorRanker):
    """Scores are products of user and item vectors plus an item bias, computed on the device of the item vectors."""

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
        scores = self._to_device(users) @ self.item_vectors.T
        return (scores if self.bias is None else scores + self.bias).cpu().numpy()

    def score_candidates(
        self, users: Float[np.ndarray, "users size"], items: Int[np.ndarray, "users columns"]
    ) -> Float[np.ndarray, "users columns"]:
        vectors = self._to_device(users)
        size = max(1, GATHERED_VALUES // max(1, items.shape[1] * users.shape[1]))
        scores = vectors.new_empty(items.shape)
        for start in range(0, len(items), size):
            part = slice(start, start + size)
            gathered = self.item_vectors[torch.from_numpy(items[part]).to(scores.device)]
            torch.sum(gathered * vectors[part, None], dim=-1, out=scores[part])
        if self.bias is not None:
            scores += self.bias[torch.from_numpy(items).to(scores.device)]
        return scores.cpu().numpy()

    def _to_device(self, users: Float[np.ndarray, "users size"]) -> Float[Tensor, "users size"]:
        return torch.from_numpy(users).to(self.item_vectors.device)


class SequentialRanker(DotProductRanker):
    """A user's vector is the last state alone; a constant dimension would distort the cosines of E5."""

    def __init__(self, model: SequenceNetwork) -> None:
        bias = model.output_bias
        super().__init__(model.item_table, None if bias is None else bias.detach())
        self.model = model

    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users size"]:
        return self.model.represent(histories).cpu().numpy()
