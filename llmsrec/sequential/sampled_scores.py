"""Scores of each state with its own sample of items, without the (states, items, size) array of gathered vectors."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

GATHERED_VALUES = 1 << 18  # item vector values gathered at a time: 1 MB fits the CPU cache


def sampled_scores(
    states: Float[Tensor, "n size"],
    table: Float[Tensor, "indices size"],
    items: Int[Tensor, "n k"],
) -> Float[Tensor, "n k"]:
    """The products of state n and the table's rows `items[n]`."""
    scores: Tensor = _SampledScores.apply(states, table, items)  # type: ignore[no-untyped-call]
    return scores


class _SampledScores(torch.autograd.Function):
    """The gradient is a sparse matrix (states, items): its products with the two factors are weighted sums of rows."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, items: Tensor) -> Tensor:
        ctx.save_for_backward(states, table, items)
        (_, count), width = items.shape, states.shape[1]
        size = max(1, GATHERED_VALUES // max(1, count * width))
        rows = min(size, len(items))
        buffer = states.new_empty(rows * count, width)  # reused: new memory is slow
        scores = states.new_empty(items.shape)
        for start in range(0, len(items), size):
            part, ids = states[start : start + size], items[start : start + size]
            gathered = buffer[: ids.numel()]
            torch.index_select(table, 0, ids.reshape(-1), out=gathered)
            vectors = gathered.view(*ids.shape, width)
            scores[start : start + size] = torch.einsum("nd,nkd->nk", part, vectors)
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        states, table, items = ctx.saved_tensors
        count, weights = items.shape[1], gradients[0].reshape(-1)
        starts = torch.arange(len(items), device=items.device) * count
        for_states = _weighted_sums(table, items.reshape(-1), starts, weights)
        ordered, order = items.reshape(-1).sort(stable=True)
        starts = torch.searchsorted(ordered, torch.arange(len(table), device=items.device))
        for_table = _weighted_sums(states, order // count, starts, weights[order])
        return for_states, for_table, None


def _weighted_sums(rows: Tensor, indices: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Sum b is that of the rows at indices[starts[b]:starts[b + 1]], each times its weight."""
    return functional.embedding_bag(
        indices, rows, starts, mode="sum", per_sample_weights=weights.contiguous()
    )
