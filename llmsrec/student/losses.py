"""The three terms of LLM-SRec's objective: tensors in, a scalar out (SPEC 4.9)."""

import torch
from jaxtyping import Bool, Float, Int
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


def uniformity_loss(
    vectors: Float[Tensor, "users size"], owners: Int[Tensor, "users"] | None = None
) -> Float[Tensor, ""]:
    """Eq. 3 for one side: mean of exp(-2 d^2) over distinct pairs, 0 when there is none (SPEC 6.12).

    With `owners`, two vectors of one user at two moments are no pair: they may be alike."""
    count = len(vectors)
    upper = torch.triu_indices(count, count, offset=1, device=vectors.device)
    if owners is not None:
        upper = upper[:, owners[upper[0]] != owners[upper[1]]]
    if upper.shape[1] == 0:
        return vectors.sum() * 0.0
    cosine = functional.normalize(vectors, dim=1) @ functional.normalize(vectors, dim=1).T
    # |a - b|^2 = 2 - 2 cos on the sphere: exact, and smooth where two vectors coincide
    return torch.exp(-2 * (2 - 2 * cosine[upper[0], upper[1]])).mean()


def catalogue_loss(
    scores: Float[Tensor, "users items"],
    targets: Int[Tensor, "users"],
    chance: Float[Tensor, "items"],
    allowed: Bool[Tensor, "users items"],
) -> Float[Tensor, ""]:
    """Eq. 1 against the whole catalogue, of which `scores` holds the items that this step encodes.

    An item that comes into a step with probability `chance` stands for 1 / chance items, so the sum over the
    others is unbiased, and popular items, which come often, are not punished for it. The target stands for itself."""
    place = torch.arange(len(scores), device=scores.device)
    weighted = (scores - chance.log()).masked_fill(~allowed, -torch.inf)
    positive = scores[place, targets]
    weighted = weighted.index_put((place, targets), positive)
    return (weighted.logsumexp(dim=1) - positive).mean()
