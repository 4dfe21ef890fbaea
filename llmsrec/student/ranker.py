"""The student as a ranker: user vectors times the encoded catalogue."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.core.progress import Progress
from llmsrec.data.sequences import Sequences
from llmsrec.sequential.ranker import DotProductRanker
from llmsrec.student.model import LLMSRec
from llmsrec.training import distributed

RepresentUsers = Callable[[Sequences], Tensor]  # one row per history
CHUNK = 512  # prompts written at a time


def encode_items(model: LLMSRec, num_items: int) -> Float[np.ndarray, "indices shared"]:
    """Every item once; row 0, the padding's, is zero."""
    vectors = encode(model, np.arange(1, num_items + 1))
    return np.concatenate([np.zeros_like(vectors[:1]), vectors])


@torch.no_grad()
def encode(model: LLMSRec, items: Int[np.ndarray, "items"]) -> Float[np.ndarray, "items shared"]:
    """Of several processes each encodes a part, and all have the whole."""
    shares = distributed.shard(len(items))
    own = items[shares[distributed.rank()]]
    matrix = torch.zeros(len(own), model.config.shared_size, device=model.backbone.device)
    progress = Progress("encoding items", len(own), "items")
    for start in range(0, len(own), CHUNK):
        some = own[start : start + CHUNK]
        matrix[start : start + CHUNK] = model.represent_items(some)
        progress.advance(len(some))
    return distributed.all_gather(matrix, shares).cpu().numpy()


class StudentRanker(DotProductRanker):
    """The student as a ranker. `represent_users` replaces the model's own, for example by one with a cache."""

    def __init__(
        self,
        model: LLMSRec,
        item_vectors: Float[np.ndarray, "indices shared"],
        represent_users: RepresentUsers | None = None,
    ) -> None:
        super().__init__(torch.from_numpy(item_vectors).to(model.backbone.device))
        self.model = model
        self.represent_users = represent_users or model.represent_users

    @torch.no_grad()
    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users shared"]:
        shares = distributed.shard(len(histories))
        own = histories.take(shares[distributed.rank()])
        size = self.model.config.shared_size
        vectors = torch.zeros(len(own), size, device=self.model.backbone.device)
        progress = Progress("reading users", len(own), "users")
        for start in range(0, len(own), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(own)))
            vectors[start : start + CHUNK] = self.represent_users(own.take(rows))
            progress.advance(len(rows))
        return distributed.all_gather(vectors, shares).cpu().numpy()
