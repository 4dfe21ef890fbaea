"""HR@k, NDCG@k and MRR of each user from the rank of its target (specification 2); ties count in expectation.

If b candidates score higher and t others score the same, the target's rank is uniform on b+1 .. b+t+1, and a metric is
its mean over these ranks. A constant scorer thus gets the value of chance.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Ranks:
    """The position of each target among its `num_candidates`, which include it."""

    better: Int[np.ndarray, "users"]  # candidates that score strictly higher
    ties: Int[np.ndarray, "users"]  # other candidates that score the same
    num_candidates: Int[np.ndarray, "users"]

    def __len__(self) -> int:
        return len(self.better)


def hit_rate(ranks: Ranks, k: int) -> Float[np.ndarray, "users"]:
    """HR@k of each user: 1 if the target is among the first k."""
    return _expected(ranks, np.ones(k))


def ndcg(ranks: Ranks, k: int) -> Float[np.ndarray, "users"]:
    """NDCG@k of each user: 1 / log2(rank + 1) if the target is among the first k."""
    return _expected(ranks, 1 / np.log2(np.arange(1, k + 1) + 1))


def mrr(ranks: Ranks) -> Float[np.ndarray, "users"]:
    """1 / rank of each user's target."""
    return _expected(ranks, 1 / np.arange(1, int(ranks.num_candidates.max(initial=1)) + 1))


def _expected(ranks: Ranks, gains: Float[np.ndarray, "cut"]) -> Float[np.ndarray, "users"]:
    """Mean gain over the tied ranks; gains[r - 1] is the gain of rank r, later ranks have gain 0."""
    total = np.concatenate([[0.0], np.cumsum(gains)])
    first = np.minimum(ranks.better, len(gains))
    last = np.minimum(ranks.better + ranks.ties + 1, len(gains))
    return (total[last] - total[first]) / (ranks.ties + 1)
