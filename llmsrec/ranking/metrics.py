"""HR@k, NDCG@k and MRR of each user from the rank of its target (SPEC 2); ties count in expectation.

With b candidates scoring higher and t scoring the same, the target's rank is uniform on b+1 .. b+t+1, and a
metric is its mean over those ranks: a constant scorer gets chance, whatever order a sort would have left.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Ranks:
    """Where each target stands among `num_candidates` (itself included)."""

    better: Int[np.ndarray, "users"]  # candidates that score strictly higher
    ties: Int[np.ndarray, "users"]  # other candidates that score the same
    num_candidates: Int[np.ndarray, "users"]

    def __len__(self) -> int:
        return len(self.better)


def hit_rate(ranks: Ranks, k: int) -> Float[np.ndarray, "users"]:
    return _expected(ranks, np.ones(k))


def ndcg(ranks: Ranks, k: int) -> Float[np.ndarray, "users"]:
    return _expected(ranks, 1 / np.log2(np.arange(1, k + 1) + 1))


def mrr(ranks: Ranks) -> Float[np.ndarray, "users"]:
    return _expected(ranks, 1 / np.arange(1, int(ranks.num_candidates.max(initial=1)) + 1))


def _expected(ranks: Ranks, gains: Float[np.ndarray, "cut"]) -> Float[np.ndarray, "users"]:
    """Mean gain over the tied ranks; gains[r - 1] is that of rank r, later ranks gain nothing."""
    total = np.concatenate([[0.0], np.cumsum(gains)])
    first = np.minimum(ranks.better, len(gains))
    last = np.minimum(ranks.better + ranks.ties + 1, len(gains))
    return (total[last] - total[first]) / (ranks.ties + 1)
