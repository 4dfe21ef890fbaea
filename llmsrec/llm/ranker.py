"""A retrieval model as a ranker: user vectors times the vectors of all items."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.core.progress import Progress
from llmsrec.data.sequences import Sequences
from llmsrec.llm.retrieval import RetrievalModel
from llmsrec.sequential.ranker import DotProductRanker
from llmsrec.training import distributed

RepresentUsers = Callable[[Sequences], Tensor]  # one row per history
CHUNK = 512  # prompts that are built at a time


def encode_items(model: RetrievalModel, num_items: int) -> Float[np.ndarray, "indices shared"]:
    """The vector of every item by item_index; row 0, the padding's, is zero."""
    vectors = encode(model, np.arange(1, num_items + 1))
    return np.concatenate([np.zeros_like(vectors[:1]), vectors])


@torch.no_grad()
def encode(
    model: RetrievalModel, items: Int[np.ndarray, "items"]
) -> Float[np.ndarray, "items shared"]:
    """The vectors of these items. Each process encodes a shard; all return the whole."""
    shards = distributed.shard(len(items))
    local = items[shards[distributed.rank()]]
    vectors = torch.zeros(len(local), model.config.shared_size, device=model.backbone.device)
    progress = Progress("encoding items", len(local), "items")
    for start in range(0, len(local), CHUNK):
        chunk = local[start : start + CHUNK]
        vectors[start : start + CHUNK] = model.represent_items(chunk)
        progress.advance(len(chunk))
    return distributed.all_gather(vectors, shards).cpu().numpy()


class RetrievalRanker(DotProductRanker):
    """`represent_users` replaces the model's own method, for example by one with a KV cache."""

    def __init__(
        self,
        model: RetrievalModel,
        item_vectors: Float[np.ndarray, "indices shared"],
        represent_users: RepresentUsers | None = None,
    ) -> None:
        super().__init__(torch.from_numpy(item_vectors).to(model.backbone.device))
        self.model = model
        self.represent_users = represent_users or model.represent_users

    @torch.no_grad()
    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users shared"]:
        """One vector per history. Each process computes a shard; all return the whole."""
        shards = distributed.shard(len(histories))
        local = histories.take(shards[distributed.rank()])
        size = self.model.config.shared_size
        vectors = torch.zeros(len(local), size, device=self.model.backbone.device)
        progress = Progress("encoding users", len(local), "users")
        for start in range(0, len(local), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(local)))
            vectors[start : start + CHUNK] = self.represent_users(local.take(rows))
            progress.advance(len(rows))
        return distributed.all_gather(vectors, shards).cpu().numpy()
