"""Ranking a whole catalogue, and intervals: the project's way against one user, and one resample, at a time.

The plain way scores a user, takes out what was bought, sorts, and looks where the target stands; the plain bootstrap
draws users and averages. Both are timed on a part of the work and scaled to the whole: at full size they take minutes.
"""

import argparse
import time

import numpy as np

from benchmarks.figures import Figure, in_own_process, print_figures
from llmsrec.data.sequences import Sequences
from llmsrec.evaluation.bootstrap import resampled_means
from llmsrec.ranking.protocol import MB, SCORES_MB, rank_all_items

USERS, ITEMS = 10_000, 100_000
SIZES = (64, 128)  # of the vectors of teacher and student
BOUGHT = 10
RESAMPLES, COLUMNS = 1_000, 32
PART = 100  # users, and resamples, of the plain ways


class Store:
    """Random vectors: a ranking takes as long whatever they say."""

    def __init__(self, users: int, items: int, size: int = SIZES[0]) -> None:
        draws = np.random.default_rng(0)
        self.users = draws.standard_normal((users, size), dtype=np.float32)
        self.items = draws.standard_normal((items + 1, size), dtype=np.float32)
        self.targets = draws.integers(1, items + 1, size=users)
        self.seen = Sequences(
            np.arange(users + 1) * BOUGHT,
            draws.integers(1, items + 1, size=users * BOUGHT),
            np.zeros(users * BOUGHT, dtype=np.int64),
        )


def plain_ranks(store: Store, count: int) -> list[int]:
    places = []
    for user in range(count):
        scores = store.items @ store.users[user]
        target = store.targets[user]
        out = np.setdiff1d(store.seen[user], [target])
        scores[0] = -np.inf
        scores[out] = -np.inf
        places.append(int(np.flatnonzero(np.argsort(-scores, kind="stable") == target)[0]))
    return places


def our_ranks(store: Store, count: int, scores_mb: int = SCORES_MB) -> list[int]:
    size = max(1, scores_mb * MB // (4 * len(store.items)))
    places: list[int] = []
    for start in range(0, count, size):
        rows = np.arange(start, min(count, start + size))
        scores = store.users[rows] @ store.items.T
        places += rank_all_items(scores, store.targets[rows], store.seen.take(rows)).better.tolist()
    return places


def timed_ranks(users: int, items: int, size: int, scores_mb: int) -> float:
    store = Store(users, items, size)
    start = time.perf_counter()
    our_ranks(store, users, scores_mb)
    return time.perf_counter() - start


def ranking(users: int, items: int, size: int) -> Figure:
    part = min(PART, users)
    store = Store(users, items, size)
    differ = sum(
        a != b for a, b in zip(plain_ranks(store, part), our_ranks(store, part), strict=True)
    )
    if differ > part // 20:  # a product in blocks may round a near tie the other way
        raise SystemExit(f"{differ} of {part} ranks differ between the two ways")
    start = time.perf_counter()
    plain_ranks(store, part)
    plain = (time.perf_counter() - start) / part * users
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
        store.users[begin : begin + 80] @ store.items.T
    floor = time.perf_counter() - start
    print(
        f"the products alone: {floor:.2f} s for {product:.0f} GFLOP; one user at a time: {plain:.0f} s"
    )
    return Figure(f"full ranking, vectors of {size}, users/s", plain / ours, 50)


def bootstrap(users: int) -> Figure:
    values = np.random.default_rng(1).random((users, COLUMNS))
    start = time.perf_counter()
    resampled_means(values, RESAMPLES, 0)
    ours = time.perf_counter() - start
    draws = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(PART):
        values[draws.integers(0, users, users)].mean(axis=0)
    plain = (time.perf_counter() - start) / PART * RESAMPLES
    print(
        f"{RESAMPLES:,} resamples of {users:,} users, {COLUMNS} columns: {ours:.2f} s (goal: 1 s); "
        f"one at a time {plain:.2f} s"
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
