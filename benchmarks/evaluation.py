"""Full ranking and bootstrap intervals, against a loop over users and over resamples.

The reference ranking scores a user, removes the history, sorts, and finds the target; the reference bootstrap draws
users and averages. Both are timed on a part of the work and extrapolated: at full size they take minutes.
"""

import argparse
import time

import numpy as np

from benchmarks.figures import Figure, in_own_process, print_figures
from llmsrec.data.sequences import Sequences
from llmsrec.evaluation.bootstrap import resampled_means
from llmsrec.ranking.protocol import MB, SCORES_MB, rank_all_items

USERS, ITEMS = 10_000, 100_000
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


def our_ranks(dataset: RandomDataset, count: int, scores_mb: int = SCORES_MB) -> list[int]:
    """The same by `rank_all_items`, in chunks of users."""
    size = max(1, scores_mb * MB // (4 * len(dataset.items)))
    ranks: list[int] = []
    for start in range(0, count, size):
        rows = np.arange(start, min(count, start + size))
        scores = dataset.users[rows] @ dataset.items.T
        ranks += rank_all_items(
            scores, dataset.targets[rows], dataset.seen.take(rows)
        ).better.tolist()
    return ranks


def timed_ranks(users: int, items: int, size: int, scores_mb: int) -> float:
    """Seconds to rank all users."""
    dataset = RandomDataset(users, items, size)
    start = time.perf_counter()
    our_ranks(dataset, users, scores_mb)
    return time.perf_counter() - start


def ranking(users: int, items: int, size: int) -> Figure:
    """Users per second against the loop; raises SystemExit if the ranks differ."""
    part = min(PART, users)
    dataset = RandomDataset(users, items, size)
    differ = sum(
        a != b
        for a, b in zip(reference_ranks(dataset, part), our_ranks(dataset, part), strict=True)
    )
    if differ > part // 20:  # blocked products may round near ties differently
        raise SystemExit(f"{differ} of {part} ranks differ from the reference")
    start = time.perf_counter()
    reference_ranks(dataset, part)
    loop = (time.perf_counter() - start) / part * users
    for megabytes in (SCORES_MB // 4, SCORES_MB, 8 * SCORES_MB):
        measured = in_own_process(timed_ranks, users, items, size, megabytes)
        print(
            f"{users:,} users x {items:,} items, vectors of {size}, {megabytes} MB of scores: {measured.result:.2f} s, "
            f"peak {measured.peak_bytes / 1e6:.0f} MB"
        )
        if megabytes == SCORES_MB:
            ours = measured.result
    product = 2 * users * items * size / 1e9
    start = time.perf_counter()
    for begin in range(0, users, 80):
        dataset.users[begin : begin + 80] @ dataset.items.T
    floor = time.perf_counter() - start
    print(
        f"the matrix products alone: {floor:.2f} s for {product:.0f} GFLOP; one user at a time: {loop:.0f} s"
    )
    return Figure(f"full ranking, vectors of {size}, users/s", loop / ours, 50)


def bootstrap(users: int) -> Figure:
    """Seconds of the bootstrap against a goal of one second."""
    values = np.random.default_rng(1).random((users, COLUMNS))
    start = time.perf_counter()
    resampled_means(values, RESAMPLES, 0)
    ours = time.perf_counter() - start
    draws = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(PART):
        values[draws.integers(0, users, users)].mean(axis=0)
    loop = (time.perf_counter() - start) / PART * RESAMPLES
    print(
        f"{RESAMPLES:,} resamples of {users:,} users, {COLUMNS} columns: {ours:.2f} s (goal: 1 s); "
        f"one at a time {loop:.2f} s"
    )
    return Figure("bootstrap in a second", 1 / ours, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--items", type=int, default=ITEMS)
    args = parser.parse_args()
    figures = [ranking(args.users, args.items, size) for size in SIZES]
    print_figures([*figures, bootstrap(args.users)])


if __name__ == "__main__":
    main()
