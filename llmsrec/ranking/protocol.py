"""Rank the target of each user: among its stored candidates, and among the whole catalogue (SPEC 2, 9)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from llmsrec.core.progress import Progress
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Candidates, Part, Splits
from llmsrec.ranking.metrics import Ranks
from llmsrec.ranking.ranker import Ranker, VectorRanker

MB = 1 << 20
SCORES_MB = 32  # of scores held at a time


@dataclass(frozen=True)
class Evaluation:
    """The same users in the same order for every system: rows can be paired."""

    sampled: Ranks
    full: Ranks | None
    users: Float[np.ndarray, "users size"]  # their vectors; of size 0 where the ranker has none


def evaluate(  # noqa: PLR0913 (all but three say what is left as it is)
    ranker: Ranker,
    splits: Splits,
    part: Part,
    *,
    histories: Sequences | None = None,
    rows: Int[np.ndarray, "users"] | None = None,
    full: bool = True,
    scores_mb: int = SCORES_MB,
) -> Evaluation:
    """Both ranks of the evaluated targets of `part`; `rows` takes some of them, `histories` replaces what is seen
    of the users (a shuffle), row for row."""
    rows = np.arange(len(splits.candidates[part])) if rows is None else rows
    candidates, seen = splits.candidates[part].take(rows), splits.histories(part).take(rows)
    shown = seen if histories is None else histories.take(rows)
    scorer = _Scorer(ranker, shown)
    progress = Progress("ranking", len(rows), "users")
    among_candidates, among_all = [], []
    for chunk in _chunks(len(rows), splits.num_items, scores_mb):
        some = candidates.take(chunk)
        if full:
            scores = scorer.all(chunk)
            values = np.take_along_axis(scores, some.items, axis=1)
        else:
            values = scores = scorer.some(chunk, some.items)
        if np.isnan(scores.max(axis=1)).any():  # the greatest of a row is NaN if one is
            raise FloatingPointError(f"a score is NaN for user rows {rows[chunk[:3]]}...")
        among_candidates.append(rank_candidates(values, some))
        if full:
            among_all.append(rank_all_items(scores, some.targets, seen.take(chunk)))
        progress.advance(len(chunk))
    return Evaluation(
        _concatenate(among_candidates), _concatenate(among_all) if full else None, scorer.users
    )


class _Scorer:
    """Scores of any of the users; those that have vectors are represented once."""

    def __init__(self, ranker: Ranker, shown: Sequences) -> None:
        self.ranker, self.shown = ranker, shown
        self.vectors = ranker if isinstance(ranker, VectorRanker) else None
        self.users = self.vectors.user_vectors(shown) if self.vectors else np.empty((len(shown), 0))

    def all(self, chunk: Int[np.ndarray, "chunk"]) -> Float[np.ndarray, "chunk indices"]:
        if self.vectors:
            return self.vectors.score_users(self.users[chunk])
        return self.ranker.score(self.shown.take(chunk))

    def some(
        self, chunk: Int[np.ndarray, "chunk"], items: Int[np.ndarray, "chunk columns"]
    ) -> Float[np.ndarray, "chunk columns"]:
        if self.vectors:
            return self.vectors.score_candidates(self.users[chunk], items)
        return np.take_along_axis(self.all(chunk), items, axis=1)


def rank_candidates(values: Float[np.ndarray, "users columns"], candidates: Candidates) -> Ranks:
    """Among the stored candidates, by counting: no sort, so no arbitrary order of ties (SPEC 6.4)."""
    target = np.take_along_axis(values, candidates.target_columns[:, None], axis=1)
    better, ties = (values > target).sum(axis=1), (values == target).sum(axis=1) - 1
    return Ranks(better, ties, np.full(len(values), values.shape[1]))


def rank_all_items(
    scores: Float[np.ndarray, "users items"], targets: Int[np.ndarray, "users"], seen: Sequences
) -> Ranks:
    """Among all items but the padding and those already bought; a target bought before stays in.

    All are counted, user by user while the scores are in the processor's cache, and then the few that are out of the
    race are taken off: that needs no mask as large as the scores."""
    users = np.arange(len(targets))
    target = scores[users, targets]
    better, equal = np.array(
        [
            (np.count_nonzero(own > bound), np.count_nonzero(own == bound))
            for own, bound in zip(scores, target, strict=True)
        ],
        dtype=np.int64,
    ).reshape(-1, 2).T  # fmt: skip
    rows, items = _out_of_the_race(targets, seen, scores.shape[1])
    values, bounds = scores[rows, items], target[rows]
    count = len(targets)
    better = better - np.bincount(rows[values > bounds], minlength=count)
    ties = equal - 1 - np.bincount(rows[values == bounds], minlength=count)
    return Ranks(better, ties, scores.shape[1] - np.bincount(rows, minlength=count))


def _out_of_the_race(
    targets: Int[np.ndarray, "users"], seen: Sequences, columns: int
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """The padding of each user, and each item bought before, once."""
    users = np.arange(len(targets))
    bought = np.unique(np.repeat(users, seen.lengths) * columns + seen.items)
    bought = bought[targets[bought // columns] != bought % columns]
    padding = users * columns
    both = np.union1d(padding, bought)
    return both // columns, both % columns


def _chunks(num_users: int, num_items: int, scores_mb: int) -> list[Int[np.ndarray, "chunk"]]:
    size = max(1, scores_mb * MB // (4 * (num_items + 1)))
    return [np.arange(num_users)[start : start + size] for start in range(0, num_users, size)]


def _concatenate(parts: list[Ranks]) -> Ranks:
    return Ranks(
        np.concatenate([part.better for part in parts]),
        np.concatenate([part.ties for part in parts]),
        np.concatenate([part.num_candidates for part in parts]),
    )
