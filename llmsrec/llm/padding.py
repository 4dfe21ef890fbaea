"""Ragged prompts as right-padded rows: chunks of similar length, padding and attention masks.

Rows of similar length run together, so that there is little padding, which no token of a causal model sees.
"""

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

TRAINING_TOKENS = 1 << 13  # padded tokens of one forward pass with gradients
INFERENCE_TOKENS = 1 << 15


def length_chunks(
    order: Int[np.ndarray, "rows"], lengths: Int[np.ndarray, "rows"]
) -> list[Int[np.ndarray, "chunk"]]:
    """`order`, rows by rising length, cut into chunks.

    A chunk ends where its padded size would exceed the token limit, or padding its shortest row by over a quarter."""
    limit = TRAINING_TOKENS if torch.is_grad_enabled() else INFERENCE_TOKENS
    chunks: list[np.ndarray] = []
    start = 0
    for stop in range(1, len(order) + 1):
        if stop < len(order):
            longest, count = int(lengths[order[stop]]), stop + 1 - start
            full = longest * count > limit
            wasteful = longest > 1.25 * int(lengths[order[start]]) and count > 4
            if not (full or wasteful):
                continue
        chunks.append(order[start:stop])
        start = stop
    return chunks


def right_pad(
    values: Int[np.ndarray, "n"], is_token: Bool[np.ndarray, "rows tokens"]
) -> Int[np.ndarray, "rows tokens"]:
    """Ragged values, right padded with 0; `is_token` is false at padding."""
    block = np.zeros(is_token.shape, dtype=np.int64)
    block[is_token] = values
    return block


def segment_mask(segments: Int[Tensor, "rows tokens"]) -> Bool[Tensor, "rows tokens tokens"]:
    """A token sees earlier tokens of segment 0 and of its own segment."""
    causal = torch.ones(
        segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device
    ).tril()
    same_segment = segments[:, :, None] == segments[:, None, :]
    return causal & (same_segment | (segments == 0)[:, None, :])
