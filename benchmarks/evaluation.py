"""Full ranking and bootstrap intervals, against a loop over users and over resamples.

The reference ranking scores a user, removes the history, sorts, and finds the target; the reference bootstrap draws
users and averages. Both are timed on a part of the work and extrapolated: at full size they take minutes.
"""

from collections.abc import Iterator

import numpy as np

from benchmarks.figures import Figure, in_own_process, run_benchmark, timed
from llmsrec.data.sequences import Sequences
from llmsrec.evaluation.bootstrap import resampled_means
from llmsrec.ranking.protocol import SCORES_BYTES, rank_all_items

SIZES = (64, 128)  # embedding sizes of teacher and student
HISTORY = 10  # items
RESAMPLES, COLUMNS = 1_000, 32
PART = 100  # users, and resamples, of the references


class RandomDataset:
    """Random vectors, targets and histories; the time of a ranking does not depend on their values."""

    def __init__(self, users: int, items: int, size: int = SIZES[0]) -> None:
        draws = np.random.default_rng(0)
        self.users = draws.standard_normal((users, size), dtype=np.float32)
        self.items = draws.standard_normal((items + 1, size), dtype=np.float32)
        self.targets = draws.integers(1, items + 1, size=users)
        self.seen = Sequences(
            np.arange(users + 1) * HISTORY,
            draws.integers(1, items + 1, size=users * HISTORY),
            np.zeros(users * HISTORY, dtype=np.int64),
        )


def reference_ranks(dataset: RandomDataset, count: int) -> list[int]:
    """0-based ranks of the first `count` users' targets, by a loop."""
    ranks = []
    for user in range(count):
        scores = dataset.items @ dataset.users[user]
        target = dataset.targets[user]
        excluded = np.setdiff1d(dataset.seen[user], [target])
        scores[0] = -np.inf
        scores[excluded] = -np.inf
        ranks.append(int(np.flatnonzero(np.argsort(-scores, kind="stable") == target)[0]))
    return ranks


def our_ranks(dataset: RandomDataset, count: int) -> list[int]:
    """The same by `rank_all_items`, in chunks of users."""
    size = max(1, SCORES_BYTES // (4 * len(dataset.items)))
    ranks: list[int] = []
    for start in range(0, count, size):
        rows = np.arange(start, min(count, start + size))
        scores = dataset.users[rows] @ dataset.items.T
        ranks += rank_all_items(
            scores, dataset.targets[rows], dataset.seen.take(rows)
        ).better.tolist()
    return ranks


def products(dataset: RandomDataset) -> None:
    """The matrix products of a ranking alone."""
    for start in range(0, len(dataset.users), 80):
        dataset.users[start : start + 80] @ dataset.items.T


def timed_ranks(users: int, items: int, size: int) -> float:
    """Seconds to rank all users."""
    dataset = RandomDataset(users, items, size)
    return timed(lambda: our_ranks(dataset, users))[1]


def ranking(users: int, items: int, size: int) -> Figure:
    """Users per second against the loop; raises SystemExit if the ranks differ."""
    part = min(PART, users)
    dataset = RandomDataset(users, items, size)
    reference, seconds = timed(lambda: reference_ranks(dataset, part))
    differ = sum(a != b for a, b in zip(reference, our_ranks(dataset, part), strict=True))
    if differ > part // 20:  # blocked products may round near ties differently
        raise SystemExit(f"{differ} of {part} ranks differ from the reference")
    ours, loop = in_own_process(timed_ranks, users, items, size), seconds / part * users
    _, floor = timed(lambda: products(dataset))
    print(
        f"{users:,} users x {items:,} items, vectors of {size}: {ours.result:.2f} s, "
        f"peak {ours.peak_bytes / 1e6:.0f} MB; the products alone: {floor:.2f} s; one user at a time: {loop:.0f} s"
    )
    return Figure(f"full ranking, vectors of {size}, users/s", loop / ours.result, 50)


def bootstrap(users: int) -> Figure:
    """Seconds of the bootstrap against a goal of one second."""
    values = np.random.default_rng(1).random((users, COLUMNS))
    _, ours = timed(lambda: resampled_means(values, RESAMPLES, 0))
    draws = np.random.default_rng(0)
    _, part = timed(
        lambda: [values[draws.integers(0, users, users)].mean(axis=0) for _ in range(PART)]
    )
    print(
        f"{RESAMPLES:,} resamples of {users:,} users, {COLUMNS} columns: {ours:.2f} s (goal: 1 s); "
        f"one at a time {part / PART * RESAMPLES:.2f} s"
    )
    return Figure("bootstrap in a second", 1 / ours, 1)


def figures(users: int = 10_000, items: int = 100_000) -> Iterator[Figure]:
    for size in SIZES:
        yield ranking(users, items, size)
    yield bootstrap(users)


if __name__ == "__main__":
    run_benchmark(figures)
