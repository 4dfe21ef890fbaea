"""The retrieval loss (specification 4.9, eq. 1) against drawn negatives or against the whole catalog."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def retrieval_loss(scores: Float[Tensor, "users candidates"]) -> Float[Tensor, ""]:
    """Eq. 1: mean cross-entropy of the target, in column 0, against its negatives."""
    return (scores.logsumexp(dim=1) - scores[:, 0]).mean()


def catalogue_loss(
    scores: Float[Tensor, "users items"],
    targets: Int[Tensor, "users"],
    inclusion_probability: Float[Tensor, "items"],
    allowed: Bool[Tensor, "users items"],
) -> Float[Tensor, ""]:
    """Eq. 1 against the whole catalog, estimated from the items that a step encodes.

    `targets` are columns; items that are not `allowed` for a user are left out. Each item is weighted by 1 /
    `inclusion_probability` (Horvitz and Thompson): the sum over the negatives is unbiased, so that popular items, which
    are drawn often, are not penalised. The target has weight 1."""
    rows = torch.arange(len(scores), device=scores.device)
    weighted = (scores - inclusion_probability.log()).masked_fill(~allowed, -torch.inf)
    positive = scores[rows, targets]
    weighted = weighted.index_put((rows, targets), positive)
    return (weighted.logsumexp(dim=1) - positive).mean()
