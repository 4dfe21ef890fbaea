"""Teacher, student and the overlap of titles, alone and added up, on the same test users.

Scores of two systems become comparable by z-scores: for each user, minus the mean over all items, divided by the
standard deviation. A hybrid adds z-scores. Its weights are those of a small grid with the best NDCG@10 among all items
on *valid*.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Part, Splits
from llmsrec.evaluation.bootstrap import interval, resampled_means
from llmsrec.evaluation.metrics import Ranks, hit_rate, ndcg
from llmsrec.evaluation.protocol import rank_candidates, rank_catalogue
from llmsrec.teacher.ranker import ProductRanker
from llmsrec.training import generator

LAST = 5  # purchases whose titles count
HYBRIDS = (
    ("teacher", "content"),
    ("student", "content"),
    ("teacher", "student"),
    ("teacher", "student", "content"),
)
# of every system but the first, which has 1; low ones too, since few titles overlap and their z-scores are large
GRID = (0.0, 0.03, 0.06, 0.1, 0.15, 0.25, 0.4, 0.6, 1.0, 1.5, 2.5, 4.0)
WEIGHED_ON = 5_000  # valid users at most
SCORES = 1 << 23  # of users times items held at a time
METRICS = {"ndcg@10": ndcg, "hr@10": hit_rate}

Scores = Callable[[Int[np.ndarray, "some"]], Float[np.ndarray, "some indices"]]  # of users by row
Weights = dict[str, float]  # of each system


@dataclass(frozen=True)
class Shown:
    """Users of a part of the splits, and every system's scores for them."""

    splits: Splits
    part: Part
    scores: dict[str, Scores]


@dataclass(frozen=True)
class Ranked:
    sampled: Ranks
    full: Ranks


class TitleOverlap:
    """The cosine between an item's title and the mean of the last purchases' titles (TF-IDF); nothing is trained."""

    def __init__(self, titles: list[str]) -> None:
        """By item_index."""
        self.titles = TfidfVectorizer().fit_transform(titles).tocsr()

    def scores(self, histories: Sequences) -> Scores:
        tails = histories.last(LAST)
        rows = np.repeat(np.arange(len(tails)), tails.lengths)
        shape = (len(tails), self.titles.shape[0])
        # the length of a user's vector is the same for all items: it moves no rank and no z-score
        users = sparse.csr_matrix((np.ones(len(rows)), (rows, tails.items)), shape) @ self.titles
        return lambda some: (users[some] @ self.titles.T).toarray().astype(np.float32)


def vector_scores(ranker: ProductRanker, histories: Sequences) -> Scores:
    users = ranker.user_vectors(histories)
    return lambda some: ranker.products(users[some])


def standardised(scores: Float[np.ndarray, "users indices"]) -> Float[np.ndarray, "users indices"]:
    """Z-scores over all items; the padding in column 0 is not one of them."""
    items = scores[:, 1:]
    spread = np.maximum(items.std(axis=1, keepdims=True), 1e-9)
    return (scores - items.mean(axis=1, keepdims=True)) / spread


def ranked(
    shown: Shown, systems: list[Weights], rows: Int[np.ndarray, "users"] | None = None
) -> list[Ranked]:
    """Of each system or hybrid; `rows` takes some of the users."""
    candidates = shown.splits.candidates[shown.part]
    rows = np.arange(len(candidates)) if rows is None else rows
    seen = shown.splits.histories(shown.part)
    parts: list[list[Ranked]] = [[] for _ in systems]
    for some in _chunks(rows, shown.splits.num_items):
        raw = {name: shown.scores[name](some) for name in {name for one in systems for name in one}}
        even = {name: standardised(scores) for name, scores in raw.items()}
        chosen, before = candidates.take(some), seen.take(some)
        for weights, found in zip(systems, parts, strict=True):
            alone = len(weights) == 1
            total = raw[next(iter(weights))] if alone else _weighted(even, weights)
            values = np.take_along_axis(total, chosen.items, axis=1)
            full = rank_catalogue(total, chosen.targets, before)
            found.append(Ranked(rank_candidates(values, chosen), full))
    return [
        Ranked(_joined([one.sampled for one in found]), _joined([one.full for one in found]))
        for found in parts
    ]


def weighed(valid: Shown, names: tuple[str, ...]) -> Weights:
    """The weights of the grid with which these systems together rank the validation targets best."""
    total = len(valid.splits.candidates[valid.part])
    rows = np.sort(generator(0, total).permutation(total)[:WEIGHED_ON])
    grid = [
        dict(zip(names, (1.0, *rest), strict=True)) for rest in product(GRID, repeat=len(names) - 1)
    ]
    quality = [ndcg(found.full, 10).mean() for found in ranked(valid, grid, rows)]
    return grid[int(np.argmax(quality))]


def table(found: dict[str, Ranked], weights: dict[str, Weights], resamples: int) -> pd.DataFrame:
    """A row for each system, protocol and metric, with its interval over users."""
    keys = [
        (name, protocol, metric)
        for name in found
        for protocol in ("sampled", "full")
        for metric in METRICS
    ]
    values = np.column_stack(
        [METRICS[metric](getattr(found[name], protocol), 10) for name, protocol, metric in keys]
    )
    means = resampled_means(values, resamples, seed=0)
    rows = []
    for place, (name, protocol, metric) in enumerate(keys):
        mean = interval(float(values[:, place].mean()), means[:, place])
        mixed = " ".join(f"{part}:{weight:g}" for part, weight in weights.get(name, {}).items())
        rows.append({"system": name, "protocol": protocol, "metric": metric, **mean.as_dict(),
                     "users": len(values), "weights": mixed})  # fmt: skip
    return pd.DataFrame(rows)


def _weighted(even: dict[str, np.ndarray], weights: Weights) -> Float[np.ndarray, "users indices"]:
    first, *rest = [name for name, weight in weights.items() if weight]
    total = weights[first] * even[first]
    for name in rest:
        total += weights[name] * even[name]
    return total


def _chunks(rows: Int[np.ndarray, "users"], num_items: int) -> Iterator[Int[np.ndarray, "some"]]:
    size = max(1, SCORES // (num_items + 1))
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _joined(parts: list[Ranks]) -> Ranks:
    names = ("better", "ties", "num_candidates")
    return Ranks(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
