"""Rank the target of each user among its stored candidates and among all items (specification 2 and 9)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from llmsrec.core.progress import Progress
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Candidates, Part, Splits
from llmsrec.ranking.metrics import Ranks
from llmsrec.ranking.ranker import Ranker, VectorRanker

SCORES_BYTES = 32 << 20  # scores in memory at a time; more is not faster


@dataclass(frozen=True)
class Evaluation:
    """Ranks of the same users in the same order for every system, so that rows can be paired."""

    sampled: Ranks
    full: Ranks | None
    users: Float[np.ndarray, "users size"]  # their vectors; of size 0 if the ranker has none
    # the first items among all, best first; 0 where there are fewer
    lists: Int[np.ndarray, "users top_k"]


def evaluate(  # noqa: PLR0913 (all but three are options)
    ranker: Ranker,
    splits: Splits,
    part: Part,
    *,
    histories: Sequences | None = None,
    rows: Int[np.ndarray, "users"] | None = None,
    full: bool = True,
    top_k: int = 0,
) -> Evaluation:
    """Ranks of the evaluated users' targets in `part`, or of those at `rows`.

    `histories` replaces the users' histories row by row, for example by shuffled ones; `full=False` leaves out the
    ranks among all items and the lists of the first `top_k`. Raises FloatingPointError if a score is NaN."""
    rows = np.arange(len(splits.candidates[part])) if rows is None else rows
    candidates, original = splits.candidates[part].take(rows), splits.histories(part).take(rows)
    scorer = _Scorer(ranker, original if histories is None else histories.take(rows))
    progress = Progress("ranking", len(rows), "users")
    among_candidates, among_all = [], []
    lists = np.zeros((len(rows), top_k), dtype=np.int64)
    for chunk in _chunks(len(rows), splits.num_items):
        chunk_candidates = candidates.take(chunk)
        if full:
            scores = scorer.all_items(chunk)
            values = np.take_along_axis(scores, chunk_candidates.items, axis=1)
            targets, seen = chunk_candidates.targets, original.take(chunk)
            among_all.append(rank_all_items(scores, targets, seen))
            lists[chunk] = top_items(scores, targets, seen, top_k)
        else:
            values = scores = scorer.candidates(chunk, chunk_candidates.items)
        _check_numbers(scores, rows[chunk])
        among_candidates.append(rank_candidates(values, chunk_candidates))
        progress.advance(len(chunk))
    all_items = _concatenate(among_all) if full else None
    return Evaluation(_concatenate(among_candidates), all_items, scorer.users, lists)


def _check_numbers(
    scores: Float[np.ndarray, "users columns"], rows: Int[np.ndarray, "users"]
) -> None:
    if np.isnan(scores.max(axis=1)).any():  # the maximum of a row is NaN if any score is
        raise FloatingPointError(f"a score is NaN for user rows {rows[:3]}...")


class _Scorer:
    """Scores of chunks of users; user vectors are computed once."""

    def __init__(self, ranker: Ranker, histories: Sequences) -> None:
        self.ranker, self.histories = ranker, histories
        self.vectors = ranker if isinstance(ranker, VectorRanker) else None
        no_vectors = np.empty((len(histories), 0))
        self.users = self.vectors.user_vectors(histories) if self.vectors else no_vectors

    def all_items(self, chunk: Int[np.ndarray, "chunk"]) -> Float[np.ndarray, "chunk indices"]:
        if self.vectors:
            return self.vectors.score_users(self.users[chunk])
        return self.ranker.score(self.histories.take(chunk))

    def candidates(
        self, chunk: Int[np.ndarray, "chunk"], items: Int[np.ndarray, "chunk columns"]
    ) -> Float[np.ndarray, "chunk columns"]:
        if self.vectors:
            return self.vectors.score_candidates(self.users[chunk], items)
        return np.take_along_axis(self.all_items(chunk), items, axis=1)


def rank_candidates(values: Float[np.ndarray, "users columns"], candidates: Candidates) -> Ranks:
    """Ranks among the stored candidates by counting; a sort would order ties arbitrarily (specification 6.4)."""
    target = np.take_along_axis(values, candidates.target_columns[:, None], axis=1)
    better, ties = (values > target).sum(axis=1), (values == target).sum(axis=1) - 1
    return Ranks(better, ties, np.full(len(values), values.shape[1]))


def rank_all_items(
    scores: Float[np.ndarray, "users items"], targets: Int[np.ndarray, "users"], seen: Sequences
) -> Ranks:
    """Ranks among all items except the padding and those in the history; a target that is in the history stays.

    All items are counted first, user by user so that the scores stay in the processor's cache. The few excluded ones
    are then subtracted, which needs no mask as large as the scores."""
    users = np.arange(len(targets))
    target = scores[users, targets]
    better, equal = np.array(
        [
            (np.count_nonzero(row > bound), np.count_nonzero(row == bound))
            for row, bound in zip(scores, target, strict=True)
        ],
        dtype=np.int64,
    ).reshape(-1, 2).T  # fmt: skip
    rows, items = _excluded_items(targets, seen, scores.shape[1])
    values, bounds = scores[rows, items], target[rows]
    count = len(targets)
    better = better - np.bincount(rows[values > bounds], minlength=count)
    ties = equal - 1 - np.bincount(rows[values == bounds], minlength=count)
    return Ranks(better, ties, scores.shape[1] - np.bincount(rows, minlength=count))


def top_items(
    scores: Float[np.ndarray, "users items"],
    targets: Int[np.ndarray, "users"],
    seen: Sequences,
    k: int,
) -> Int[np.ndarray, "users k"]:
    """The first `k` of the ranking among all items, best first, equal scores by index; 0 where there are fewer."""
    lists = np.zeros((len(scores), k), dtype=np.int64)
    if not k:
        return lists
    left = np.array(scores)
    left[_excluded_items(targets, seen, scores.shape[1])] = -np.inf
    last = max(0, left.shape[1] - k)
    bounds = np.partition(left, last, axis=1)[:, last]
    for row, (own, bound) in enumerate(zip(left, bounds, strict=True)):
        # more than k items if several have the score of the last place
        items = np.flatnonzero((own >= bound) & (own > -np.inf))
        items = items[np.argsort(-own[items], kind="stable")[:k]]
        lists[row, : len(items)] = items
    return lists


def _excluded_items(
    targets: Int[np.ndarray, "users"], seen: Sequences, columns: int
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """(user, item) of the padding and of each distinct item in the history, without the target."""
    users = np.arange(len(targets))
    bought = np.unique(np.repeat(users, seen.lengths) * columns + seen.items)
    bought = bought[targets[bought // columns] != bought % columns]
    padding = users * columns
    both = np.union1d(padding, bought)
    return both // columns, both % columns


def _chunks(num_users: int, num_items: int) -> list[Int[np.ndarray, "chunk"]]:
    size = max(1, SCORES_BYTES // (4 * (num_items + 1)))
    return [np.arange(num_users)[start : start + size] for start in range(0, num_users, size)]


def _concatenate(parts: list[Ranks]) -> Ranks:
    return Ranks(
        np.concatenate([part.better for part in parts]),
        np.concatenate([part.ties for part in parts]),
        np.concatenate([part.num_candidates for part in parts]),
    )
