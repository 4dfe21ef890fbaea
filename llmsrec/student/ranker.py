"""The student as a ranker: user vectors times the encoded catalogue."""

import numpy as np
import torch
from jaxtyping import Float

from llmsrec.data.sequences import Sequences
from llmsrec.progress import Progress
from llmsrec.student.model import LLMSRec

CHUNK = 512  # prompts written at a time


@torch.no_grad()
def encode_items(model: LLMSRec, num_items: int) -> Float[np.ndarray, "indices shared"]:
    """Every item once; row 0, the padding's, is zero."""
    matrix = np.zeros((num_items + 1, model.config.shared_size), dtype=np.float32)
    progress = Progress("encoding items", num_items, "items")
    for start in range(1, num_items + 1, CHUNK):
        items = np.arange(start, min(start + CHUNK, num_items + 1))
        matrix[items] = model.represent_items(items).cpu().numpy()
        progress.advance(len(items))
    return matrix


class StudentRanker:
    def __init__(self, model: LLMSRec, item_vectors: Float[np.ndarray, "indices shared"]) -> None:
        self.model, self.item_vectors = model, item_vectors

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        return self.user_vectors(histories) @ self.item_vectors.T

    @torch.no_grad()
    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users shared"]:
        rows = np.arange(len(histories))
        parts = [
            self.model.represent_users(histories.take(rows[start : start + CHUNK])).cpu().numpy()
            for start in range(0, len(rows), CHUNK)
        ]
        return (
            np.concatenate(parts)
            if parts
            else np.zeros((0, self.model.config.shared_size), np.float32)
        )
