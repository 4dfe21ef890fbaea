"""Teacher, student and the overlap of titles, alone and as weighted sums, on the same test users.

Scores of different systems become comparable as z-scores: for each user, minus the mean over all items, divided by the
standard deviation. A hybrid is a weighted sum of z-scores. Its weights are those of a small grid with the best NDCG@10
among all items on *valid*.
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
from llmsrec.ranking.metrics import Ranks, hit_rate, ndcg
from llmsrec.ranking.protocol import rank_all_items, rank_candidates
from llmsrec.ranking.ranker import VectorRanker
from llmsrec.training.seeding import generator

LAST = 5  # purchases whose titles count
HYBRIDS = (
    ("teacher", "content"),
    ("student", "content"),
    ("teacher", "student"),
    ("teacher", "student", "content"),
)
# of every system but the first, which has 1; low ones too, since few titles overlap and their z-scores are large
GRID = (0.0, 0.03, 0.06, 0.1, 0.15, 0.25, 0.4, 0.6, 1.0, 1.5, 2.5, 4.0)
WEIGHT_USERS = 5_000  # valid users, at most, on which weights are chosen
CHUNK_SCORES = 1 << 23  # scores in memory at a time
METRICS = {"ndcg@10": ndcg, "hr@10": hit_rate}

# the scores of all items for users by their row
Scores = Callable[[Int[np.ndarray, "rows"]], Float[np.ndarray, "rows indices"]]
Weights = dict[str, float]  # by system


@dataclass(frozen=True)
class ScoredPart:
    """The scores of every system for the users of a part of the splits."""

    splits: Splits
    part: Part
    scores: dict[str, Scores]


@dataclass(frozen=True)
class BothRanks:
    """Ranks among the stored candidates and among all items."""

    sampled: Ranks
    full: Ranks


class TitleOverlap:
    """The cosine of an item's title and the mean of the last purchases' titles (TF-IDF); nothing is trained."""

    def __init__(self, titles: list[str]) -> None:
        """`titles` by item_index."""
        self.titles = TfidfVectorizer().fit_transform(titles).tocsr()

    def scores(self, histories: Sequences) -> Scores:
        """The cosines up to the length of the user's vector, which changes neither ranks nor z-scores."""
        tails = histories.last(LAST)
        rows = np.repeat(np.arange(len(tails)), tails.lengths)
        shape = (len(tails), self.titles.shape[0])
        users = sparse.csr_matrix((np.ones(len(rows)), (rows, tails.items)), shape) @ self.titles
        return lambda rows: (users[rows] @ self.titles.T).toarray().astype(np.float32)


def vector_scores(ranker: VectorRanker, histories: Sequences) -> Scores:
    """The scores of a ranker; user vectors are computed once."""
    users = ranker.user_vectors(histories)
    return lambda rows: ranker.score_users(users[rows])


def z_scores(scores: Float[np.ndarray, "users indices"]) -> Float[np.ndarray, "users indices"]:
    """Standardised over all items; the padding in column 0 is not counted."""
    items = scores[:, 1:]
    deviation = np.maximum(items.std(axis=1, keepdims=True), 1e-9)
    return (scores - items.mean(axis=1, keepdims=True)) / deviation


def ranks_of(
    scored: ScoredPart, systems: list[Weights], rows: Int[np.ndarray, "users"] | None = None
) -> list[BothRanks]:
    """The ranks of each system or hybrid, for all users or those at `rows`."""
    candidates = scored.splits.candidates[scored.part]
    rows = np.arange(len(candidates)) if rows is None else rows
    histories = scored.splits.histories(scored.part)
    names = {name for weights in systems for name in weights}
    parts: list[list[BothRanks]] = [[] for _ in systems]
    for chunk in _chunks(rows, scored.splits.num_items):
        raw = {name: scored.scores[name](chunk) for name in names}
        standardised = {name: z_scores(scores) for name, scores in raw.items()}
        chunk_candidates, seen = candidates.take(chunk), histories.take(chunk)
        for weights, ranks in zip(systems, parts, strict=True):
            single = len(weights) == 1
            scores = raw[next(iter(weights))] if single else _weighted_sum(standardised, weights)
            values = np.take_along_axis(scores, chunk_candidates.items, axis=1)
            full = rank_all_items(scores, chunk_candidates.targets, seen)
            ranks.append(BothRanks(rank_candidates(values, chunk_candidates), full))
    return [
        BothRanks(_concatenate([one.sampled for one in part]), _concatenate([one.full for one in part]))
        for part in parts
    ]  # fmt: skip


def best_weights(valid: ScoredPart, names: tuple[str, ...]) -> Weights:
    """The weights of the grid with the best NDCG@10 among all items on the validation targets."""
    total = len(valid.splits.candidates[valid.part])
    rows = np.sort(generator(0, total).permutation(total)[:WEIGHT_USERS])
    grid = [
        dict(zip(names, (1.0, *rest), strict=True)) for rest in product(GRID, repeat=len(names) - 1)
    ]
    quality = [ndcg(ranks.full, 10).mean() for ranks in ranks_of(valid, grid, rows)]
    return grid[int(np.argmax(quality))]


def metrics_table(
    ranks: dict[str, BothRanks], weights: dict[str, Weights], resamples: int
) -> pd.DataFrame:
    """A row per system, protocol and metric, with its interval over users."""
    keys = [
        (name, protocol, metric)
        for name in ranks
        for protocol in ("sampled", "full")
        for metric in METRICS
    ]
    values = np.column_stack(
        [METRICS[metric](getattr(ranks[name], protocol), 10) for name, protocol, metric in keys]
    )
    means = resampled_means(values, resamples, seed=0)
    rows = []
    for column, (name, protocol, metric) in enumerate(keys):
        mean = interval(float(values[:, column].mean()), means[:, column])
        mixture = " ".join(f"{part}:{weight:g}" for part, weight in weights.get(name, {}).items())
        rows.append({"system": name, "protocol": protocol, "metric": metric, **mean.as_dict(),
                     "users": len(values), "weights": mixture})  # fmt: skip
    return pd.DataFrame(rows)


def _weighted_sum(
    scores: dict[str, np.ndarray], weights: Weights
) -> Float[np.ndarray, "users indices"]:
    first, *rest = [name for name, weight in weights.items() if weight]
    total = weights[first] * scores[first]
    for name in rest:
        total += weights[name] * scores[name]
    return total


def _chunks(rows: Int[np.ndarray, "users"], num_items: int) -> Iterator[Int[np.ndarray, "chunk"]]:
    size = max(1, CHUNK_SCORES // (num_items + 1))
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _concatenate(parts: list[Ranks]) -> Ranks:
    names = ("better", "ties", "num_candidates")
    return Ranks(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
