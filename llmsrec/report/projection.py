"""Users and items of one space in two dimensions, and how similar users are (over-smoothing)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Vectors = Float[np.ndarray, "_ size"]


@dataclass(frozen=True)
class Projection:
    """Coordinates on the first two principal axes, and the similarity of users."""

    users: Float[np.ndarray, "users 2"]
    items: Float[np.ndarray, "items 2"]
    mean_cosine: float  # of two users; 1 if all are equal
    effective_rank: float  # of the users: effective number of dimensions in which they differ


def project(users: Vectors, items: Vectors) -> Projection:
    """PCA of unit vectors: the length of a user's vector does not change the order of items."""
    users, items = _unit(users), _unit(items)
    both = np.concatenate([users, items])
    centre = both.mean(axis=0)
    _, _, axes = np.linalg.svd(both - centre, full_matrices=False)
    sign = np.where(axes[:2].sum(axis=1) < 0, -1, 1)  # SVD leaves the sign open
    axes = axes[:2] * sign[:, None]
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
    """Exponential of the entropy of the shares of variance: d if d directions have equal variance."""
    variances = np.linalg.svd(_unit(vectors) - _unit(vectors).mean(axis=0), compute_uv=False) ** 2
    total = float(variances.sum())
    if total < 1e-12:
        return 0.0
    shares = variances[variances > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
