"""The student as a ranker: user vectors times the encoded catalogue."""

import numpy as np
import torch
from jaxtyping import Float, Int

from llmsrec import parallel
from llmsrec.data.sequences import Sequences
from llmsrec.progress import Progress
from llmsrec.student.kept_users import KeptUsers
from llmsrec.student.model import LLMSRec
from llmsrec.teacher.ranker import ProductRanker

CHUNK = 512  # prompts written at a time


def encode_items(model: LLMSRec, num_items: int) -> Float[np.ndarray, "indices shared"]:
    """Every item once; row 0, the padding's, is zero."""
    vectors = encode(model, np.arange(1, num_items + 1))
    return np.concatenate([np.zeros_like(vectors[:1]), vectors])


@torch.no_grad()
def encode(model: LLMSRec, items: Int[np.ndarray, "items"]) -> Float[np.ndarray, "items shared"]:
    """Of several processes each encodes a part, and all have the whole."""
    shares = parallel.shares(len(items))
    own = items[shares[parallel.rank()]]
    matrix = torch.zeros(len(own), model.config.shared_size, device=model.backbone.device)
    progress = Progress("encoding items", len(own), "items")
    for start in range(0, len(own), CHUNK):
        some = own[start : start + CHUNK]
        matrix[start : start + CHUNK] = model.represent_items(some)
        progress.advance(len(some))
    return parallel.gathered(matrix, shares).cpu().numpy()


class StudentRanker(ProductRanker):
    """`kept` reads shoppers who come again from where their last prompt ended."""

    def __init__(
        self,
        model: LLMSRec,
        item_vectors: Float[np.ndarray, "indices shared"],
        kept: KeptUsers | None = None,
    ) -> None:
        super().__init__(torch.from_numpy(item_vectors).to(model.backbone.device))
        self.model = model
        self.represent = kept.represent if kept else model.represent_users

    @torch.no_grad()
    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users shared"]:
        shares = parallel.shares(len(histories))
        own = histories.take(shares[parallel.rank()])
        size = self.model.config.shared_size
        vectors = torch.zeros(len(own), size, device=self.model.backbone.device)
        progress = Progress("reading users", len(own), "users")
        for start in range(0, len(own), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(own)))
            vectors[start : start + CHUNK] = self.represent(own.take(rows))
            progress.advance(len(rows))
        return parallel.gathered(vectors, shares).cpu().numpy()
