"""95% bootstrap intervals over users; all columns share the resamples, so any two are paired (specification 2)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

CHUNK_VALUES = 1 << 24  # weights in memory at a time: 64 MB


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


def resampled_means(
    values: Float[np.ndarray, "targets columns"],
    resamples: int,
    seed: int,
    users: Int[np.ndarray, "targets"] | None = None,
) -> Float[np.ndarray, "resamples columns"]:
    """Column means of each resample of the users. A drawn user brings all its targets, since they are not independent.

    `users` is the user of each target; without it each target is that of another user."""
    sums, sizes = _by_user(values.astype(np.float32), users)
    num_users = len(sizes)
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    size = max(1, CHUNK_VALUES // num_users)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        drawn = generator.integers(0, num_users, size=(count, num_users), dtype=np.int32)
        times = np.stack([np.bincount(row, minlength=num_users) for row in drawn]).astype(
            np.float32
        )
        means[start : start + count] = times @ sums / (times @ sizes)[:, None]
    return means


def _by_user(
    values: Float[np.ndarray, "targets columns"], users: Int[np.ndarray, "targets"] | None
) -> tuple[Float[np.ndarray, "users columns"], Float[np.ndarray, "users"]]:
    """The sum over each user's targets, and their number."""
    if users is None or len(np.unique(users)) == len(users):
        return values, np.ones(len(values), np.float32)
    _, owners, sizes = np.unique(users, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), values.shape[1]), np.float32)
    np.add.at(sums, owners, values)
    return sums, sizes.astype(np.float32)


def interval(value: float, means: Float[np.ndarray, "resamples"]) -> Interval:
    """`value` with the 2.5 and 97.5 percentiles of its resampled means."""
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def two_sided_p(means: Float[np.ndarray, "resamples"]) -> float:
    """The p value of a mean difference of 0; at least 2 / (resamples + 1)."""
    side = min((means <= 0).sum(), (means >= 0).sum()) + 1
    return float(min(1.0, 2 * side / (len(means) + 1)))


def holm(p: Float[np.ndarray, "tests"]) -> Float[np.ndarray, "tests"]:
    """Holm's correction for several tests (specification 9), in the order of `p`."""
    order = np.argsort(p, kind="stable")
    stepped = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return corrected
