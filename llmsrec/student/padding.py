"""Ragged prompts as right-padded rows: how many at a time, and who sees whom.

Rows of like length run together, so that little is padding; in a causal model no token sees what pads behind it.
A GPU takes several times as many tokens in one pass: with fewer it waits for the next kernel to be launched.
"""

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

TRAINING_TOKENS = 1 << 13  # padded tokens of one forward pass while gradients are kept
READING_TOKENS = 1 << 15
CUDA_TRAINING_TOKENS = 1 << 15  # chosen from FLOPs and kernel launches (docs/gpu.md), not measured
CUDA_READING_TOKENS = 1 << 16
CUDA_FILLED_TOKENS = 1 << 13  # a pass of fewer costs as much, so padding in it is free


def chunks(
    order: Int[np.ndarray, "rows"], lengths: Int[np.ndarray, "rows"], device: torch.device
) -> list[Int[np.ndarray, "chunk"]]:
    """Rows in order of length, cut where a chunk would pad beyond the budget, or its shortest row by over a quarter.

    The second only where the chunk is large enough to be a pass of its own: on a CPU more than 4 rows."""
    cuda = device.type == "cuda"
    budget = token_budget(device)
    found: list[np.ndarray] = []
    start = 0
    for stop in range(1, len(order) + 1):
        if stop < len(order):
            longest, count = int(lengths[order[stop]]), stop + 1 - start
            full = longest * count > budget
            enough = longest * count > CUDA_FILLED_TOKENS if cuda else count > 4
            wasteful = longest > 1.25 * int(lengths[order[start]]) and enough
            if not (full or wasteful):
                continue
        found.append(order[start:stop])
        start = stop
    return found


def token_budget(device: torch.device) -> int:
    """Padded tokens of one forward pass."""
    if device.type == "cuda":
        return CUDA_TRAINING_TOKENS if torch.is_grad_enabled() else CUDA_READING_TOKENS
    return TRAINING_TOKENS if torch.is_grad_enabled() else READING_TOKENS


def on_device(values: Shaped[np.ndarray, "..."], device: torch.device) -> Tensor:
    """An array as a tensor there. The host does not wait for the copy; CUDA reads the array before this returns."""
    return torch.from_numpy(values).to(device, non_blocking=True)


def spread(
    values: Int[np.ndarray, "n"], real: Bool[np.ndarray, "rows tokens"]
) -> Int[np.ndarray, "rows tokens"]:
    """Ragged values, right padded with 0."""
    block = np.zeros(real.shape, dtype=np.int64)
    block[real] = values
    return block


def seen(segments: Int[Tensor, "rows tokens"]) -> Bool[Tensor, "rows tokens tokens"]:
    """Each token sees what stands before it, but for the segments of others."""
    causal = torch.ones(
        segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device
    ).tril()
    own = segments[:, :, None] == segments[:, None, :]
    return causal & (own | (segments == 0)[:, None, :])
