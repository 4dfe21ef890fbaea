"""The losses of next-item prediction: scores in, a scalar out (specification 4.1 and 9)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def binary_loss(positive: Float[Tensor, "n"], negative: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
    """Binary cross-entropy as in the released code: the mean of the positives plus the mean of the negatives."""
    return functional.softplus(-positive).mean() + functional.softplus(negative).mean()


def full_loss(scores: Float[Tensor, "n items"], targets: Int[Tensor, "n"]) -> Float[Tensor, ""]:
    """Cross-entropy over the whole catalog."""
    return functional.cross_entropy(scores, targets)


def sampled_softmax_loss(
    positive: Float[Tensor, "n"], negative: Float[Tensor, "n k"]
) -> Float[Tensor, ""]:
    """Cross-entropy over the next item and its negatives."""
    return (torch.cat([positive[:, None], negative], dim=1).logsumexp(dim=1) - positive).mean()


def generalised_binary_loss(
    positive: Float[Tensor, "n"], negative: Float[Tensor, "n k"], num_items: int, t: float
) -> Float[Tensor, ""]:
    """gBCE (Petrov and Macdonald, RecSys 2023): the positive's sigmoid to the power beta reduces overconfidence."""
    alpha = negative.shape[1] / (num_items - 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    loss = beta * functional.softplus(-positive) + functional.softplus(negative).sum(dim=1)
    return loss.mean()
