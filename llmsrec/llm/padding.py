"""Ragged prompts as right-padded rows: chunks of similar length, padding and attention masks.

Rows of similar length run together, so that there is little padding, which no token of a causal model sees. A GPU runs
several times as many tokens in one pass: with fewer, launching kernels takes longer than computing them.
"""

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

TRAINING_TOKENS = 1 << 13  # padded tokens of one forward pass with gradients
INFERENCE_TOKENS = 1 << 15
CUDA_TRAINING_TOKENS = 1 << 15  # from counts of FLOPs and kernels (docs/howto/gpu.md), not measured
CUDA_INFERENCE_TOKENS = 1 << 16
CUDA_MIN_TOKENS = 1 << 13  # a smaller pass takes as long, so padding in it costs nothing


def length_chunks(
    order: Int[np.ndarray, "rows"], lengths: Int[np.ndarray, "rows"], device: torch.device
) -> list[Int[np.ndarray, "chunk"]]:
    """`order`, rows by rising length, cut into chunks.

    A chunk ends where its padded size would exceed the token limit, or padding its shortest row by over a quarter.
    The latter only in chunks of more than 4 rows, or on a GPU of more than `CUDA_MIN_TOKENS` tokens."""
    cuda, limit = device.type == "cuda", token_limit(device)
    chunks: list[np.ndarray] = []
    start = 0
    for stop in range(1, len(order) + 1):
        if stop < len(order):
            longest, count = int(lengths[order[stop]]), stop + 1 - start
            full = longest * count > limit
            large = longest * count > CUDA_MIN_TOKENS if cuda else count > 4
            wasteful = large and longest > 1.25 * int(lengths[order[start]])
            if not (full or wasteful):
                continue
        chunks.append(order[start:stop])
        start = stop
    return chunks


def token_limit(device: torch.device) -> int:
    """Padded tokens of one forward pass."""
    if device.type == "cuda":
        return CUDA_TRAINING_TOKENS if torch.is_grad_enabled() else CUDA_INFERENCE_TOKENS
    return TRAINING_TOKENS if torch.is_grad_enabled() else INFERENCE_TOKENS


def to_device(values: Shaped[np.ndarray, "..."], device: torch.device) -> Tensor:
    """An array as a tensor on `device`; the host does not wait for the GPU's earlier work.

    The array may be changed afterwards: CUDA copies pageable memory to a staging buffer before the call returns."""
    return torch.from_numpy(values).to(device, non_blocking=True)


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
