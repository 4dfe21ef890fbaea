"""Ragged prompts as right-padded rows: how many at a time, and who sees whom.

Rows of like length run together, so that little is padding; in a causal model no token sees what pads behind it.
"""

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

TRAINING_TOKENS = 1 << 13  # padded tokens of one forward pass while gradients are kept
READING_TOKENS = 1 << 15


def length_chunks(
    order: Int[np.ndarray, "rows"], lengths: Int[np.ndarray, "rows"]
) -> list[Int[np.ndarray, "chunk"]]:
    """Rows in order of length, cut where a chunk would pad beyond the budget, or its shortest row by over a quarter."""
    budget = TRAINING_TOKENS if torch.is_grad_enabled() else READING_TOKENS
    found: list[np.ndarray] = []
    start = 0
    for stop in range(1, len(order) + 1):
        if stop < len(order):
            longest, count = int(lengths[order[stop]]), stop + 1 - start
            full = longest * count > budget
            wasteful = longest > 1.25 * int(lengths[order[start]]) and count > 4
            if not (full or wasteful):
                continue
        found.append(order[start:stop])
        start = stop
    return found


def right_pad(
    values: Int[np.ndarray, "n"], real: Bool[np.ndarray, "rows tokens"]
) -> Int[np.ndarray, "rows tokens"]:
    """Ragged values, right padded with 0."""
    block = np.zeros(real.shape, dtype=np.int64)
    block[real] = values
    return block


def segment_mask(segments: Int[Tensor, "rows tokens"]) -> Bool[Tensor, "rows tokens tokens"]:
    """Each token sees what stands before it, but for the segments of others."""
    causal = torch.ones(
        segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device
    ).tril()
    own = segments[:, :, None] == segments[:, None, :]
    return causal & (own | (segments == 0)[:, None, :])
