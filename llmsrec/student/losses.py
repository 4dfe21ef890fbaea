"""The terms that LLM-SRec adds to the retrieval loss: distillation and uniformity (specification 4.9, eq. 2 and 3)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.07  # of the contrastive form: the released code's value; eq. 10 gives none


def distillation_loss(
    student: Float[Tensor, "users size"],
    teacher: Float[Tensor, "users size"],
    *,
    normalize: bool,
    reduction: str,
) -> Float[Tensor, ""]:
    """Eq. 2: squared distance of a user's two vectors, averaged over users and, if `reduction` is mean, dimensions.

    `normalize` scales both to length 1 first, as the released code does."""
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
    """Eq. 10 (table 12): cross-entropy of a user's own teacher vector among those of the batch."""
    similarity = functional.normalize(student, dim=1) @ functional.normalize(teacher, dim=1).T
    return functional.cross_entropy(
        similarity / TEMPERATURE, torch.arange(len(student), device=student.device)
    )


def uniformity_loss(
    vectors: Float[Tensor, "vectors size"], users: Int[Tensor, "vectors"] | None = None
) -> Float[Tensor, ""]:
    """Eq. 3 for one side: mean of exp(-2 d^2) over pairs, 0 if there is none (specification 6.12).

    With `users`, two vectors of the same user are no pair."""
    count = len(vectors)
    pairs = torch.triu_indices(count, count, offset=1, device=vectors.device)
    if users is not None:
        pairs = pairs[:, users[pairs[0]] != users[pairs[1]]]
    if pairs.shape[1] == 0:
        return vectors.sum() * 0.0
    cosine = functional.normalize(vectors, dim=1) @ functional.normalize(vectors, dim=1).T
    # |a - b|^2 = 2 - 2 cos on the sphere: exact, and smooth where two vectors coincide
    return torch.exp(-2 * (2 - 2 * cosine[pairs[0], pairs[1]])).mean()
