"""The three terms of LLM-SRec's objective: tensors in, a scalar out (SPEC 4.9)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.07  # of the contrastive form: the released code's value; eq. 10 gives none


def retrieval_loss(scores: Float[Tensor, "users candidates"]) -> Float[Tensor, ""]:
    """Eq. 1: cross-entropy of the target, in column 0, against its negatives."""
    return (scores.logsumexp(dim=1) - scores[:, 0]).mean()


def distillation_loss(
    student: Float[Tensor, "users size"],
    teacher: Float[Tensor, "users size"],
    *,
    normalize: bool,
    reduction: str,
) -> Float[Tensor, ""]:
    """Eq. 2, on the hypersphere as the released code has it; `mean` also averages over the dimensions."""
    if normalize:
        student, teacher = (
            functional.normalize(student, dim=1),
            functional.normalize(teacher, dim=1),
        )
    squared = (student - teacher).square()
    return squared.mean() if reduction == "mean" else squared.sum(dim=1).mean()


def contrastive_loss(
    student: Float[Tensor, "users size"], teacher: Float[Tensor, "users size"]
) -> Float[Tensor, ""]:
    """Eq. 10: a user's student vector finds its own teacher vector among those of the batch (table 12)."""
    similarity = functional.normalize(student, dim=1) @ functional.normalize(teacher, dim=1).T
    return functional.cross_entropy(
        similarity / TEMPERATURE, torch.arange(len(student), device=student.device)
    )


def uniformity_loss(vectors: Float[Tensor, "users size"]) -> Float[Tensor, ""]:
    """Eq. 3 for one side: mean of exp(-2 d^2) over distinct pairs, 0 when there is none (SPEC 6.12)."""
    count = len(vectors)
    if count < 2:
        return vectors.sum() * 0.0
    cosine = functional.normalize(vectors, dim=1) @ functional.normalize(vectors, dim=1).T
    upper = torch.triu_indices(count, count, offset=1, device=vectors.device)
    # |a - b|^2 = 2 - 2 cos on the sphere: exact, and smooth where two vectors coincide
    return torch.exp(-2 * (2 - 2 * cosine[upper[0], upper[1]])).mean()
