"""Users and items of one space on a sheet of paper, and how alike they all are (over-smoothing)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Vectors = Float[np.ndarray, "_ size"]


@dataclass(frozen=True)
class Projection:
    """Places on the two directions that tell most apart, and what the sheet cannot show."""

    users: Float[np.ndarray, "users 2"]
    items: Float[np.ndarray, "items 2"]
    mean_cosine: float  # mean cosine of two users: 1 would mean that all are the same to the model
    effective_rank: float  # effective number of directions in which users differ


def project(users: Vectors, items: Vectors) -> Projection:
    """Directions count, not lengths: the scores of a user rank items, whatever the user's length."""
    users, items = _unit(users), _unit(items)
    together = np.concatenate([users, items])
    centre = together.mean(axis=0)
    _, _, axes = np.linalg.svd(together - centre, full_matrices=False)
    axes = (
        axes[:2] * np.where(axes[:2].sum(axis=1) < 0, -1, 1)[:, None]
    )  # a sign that does not jump
    return Projection(
        (users - centre) @ axes.T,
        (items - centre) @ axes.T,
        mean_cosine(users),
        effective_rank(users),
    )


def mean_cosine(vectors: Vectors) -> float:
    """Mean cosine over pairs of different rows."""
    count, unit = len(vectors), _unit(vectors)
    total = float(np.square(unit.sum(axis=0, dtype=np.float64)).sum())
    return (total - count) / (count * (count - 1)) if count > 1 else 1.0


def effective_rank(vectors: Vectors) -> float:
    """The exponential of the entropy of the shares of variance: d where all d directions count alike."""
    variances = np.linalg.svd(_unit(vectors) - _unit(vectors).mean(axis=0), compute_uv=False) ** 2
    total = float(variances.sum())
    if total < 1e-12:
        return 0.0
    shares = variances[variances > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
