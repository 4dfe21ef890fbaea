"""Metrics of each system and user, and their means with intervals and paired differences for metrics.json."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from llmsrec.core.config import Count, Natural
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Part, Splits
from llmsrec.evaluation.bootstrap import Interval, interval, resampled_means, two_sided_p
from llmsrec.evaluation.lists import Lists, list_metrics
from llmsrec.evaluation.systems import SHUFFLED
from llmsrec.ranking.metrics import Ranks, hit_rate, mrr, ndcg
from llmsrec.ranking.protocol import Evaluation, evaluate
from llmsrec.ranking.ranker import Ranker, VectorRanker

PROTOCOLS = ("sampled", "full")
METRICS = ("hr@1", "hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr")
LIST_LENGTH = 10  # items of the lists whose coverage, novelty and Gini coefficient are reported
MAIN = ("recommender", "student")  # compared with every other system
SHUFFLED_MODELS = ("teacher", "student")  # also evaluated on shuffled histories


@dataclass(frozen=True)
class EvaluationConfig:
    bootstrap: Count
    shuffles: Natural
    shuffle_window: Count | None
    seed: int


MetricTable = dict[
    str, dict[str, Float[np.ndarray, "users metrics"]]
]  # system -> protocol -> values


@dataclass(frozen=True)
class UserMetrics:
    """Values of each test user in the order of the stored candidates, by system.

    `similarity` is the cosine of a user and the same user shuffled (specification E5), `users` are the vectors of the
    systems that have some, `lists` the first items among all.
    `user_indices` is the user of each row; None: all differ."""

    table: MetricTable
    similarity: dict[str, Float[np.ndarray, "users"]]
    users: dict[str, Float[np.ndarray, "users _"]]
    lists: dict[str, Lists]
    user_indices: Int[np.ndarray, "users"] | None = None


def evaluate_all(
    rankers: dict[str, Ranker], splits: Splits, config: EvaluationConfig
) -> UserMetrics:
    """Evaluate every system on the test users, teacher and student also on shuffled histories (specification E4)."""
    evaluations = {
        name: evaluate(ranker, splits, "test", top_k=LIST_LENGTH)
        for name, ranker in rankers.items()
    }
    table = {name: _values(evaluation) for name, evaluation in evaluations.items()}
    similarity: dict[str, Float[np.ndarray, users]] = {}
    for name in SHUFFLED_MODELS:
        if name in rankers and config.shuffles:
            users = evaluations[name].users
            table[f"{name}{SHUFFLED}"], cosines = _shuffled(rankers[name], users, splits, config)
            similarity |= {name: cosines} if isinstance(rankers[name], VectorRanker) else {}
    vectors = {name: run.users for name, run in evaluations.items() if run.users.shape[1]}
    lists = {name: run.lists for name, run in evaluations.items()}
    return UserMetrics(table, similarity, vectors, lists, splits.evaluated("test").users)


def _shuffled(
    ranker: Ranker, users: Float[np.ndarray, "users _"], splits: Splits, config: EvaluationConfig
) -> tuple[dict[str, Float[np.ndarray, "users metrics"]], Float[np.ndarray, "users"]]:
    """Means over the permutations: metrics, and cosines of each user's vector with that of the original history."""
    runs = [
        evaluate(ranker, splits, "test", histories=histories)
        for histories in shuffled_histories(splits, "test", config)
    ]
    values = [_values(run) for run in runs]
    means = {protocol: np.mean([run[protocol] for run in values], axis=0) for protocol in PROTOCOLS}
    return means, np.mean([cosine(users, run.users) for run in runs], axis=0)


def shuffled_histories(splits: Splits, part: Part, config: EvaluationConfig) -> list[Sequences]:
    """`shuffles` permutations of each history, or of its last `shuffle_window` items."""
    return [
        splits.histories(part).shuffled(
            np.random.default_rng((config.seed, number)), config.shuffle_window
        )
        for number in range(config.shuffles)
    ]


def _values(evaluation: Evaluation) -> dict[str, Float[np.ndarray, "users metrics"]]:
    assert evaluation.full is not None
    return {"sampled": per_user(evaluation.sampled), "full": per_user(evaluation.full)}


def per_user(ranks: Ranks) -> Float[np.ndarray, "users metrics"]:
    """The columns are METRICS."""
    cuts = {"hr": hit_rate, "ndcg": ndcg}
    columns = []
    for metric in METRICS:
        name, _, cut = metric.partition("@")
        columns.append(cuts[name](ranks, int(cut)) if cut else mrr(ranks))
    return np.stack(columns, axis=1)


def summarise(
    table: MetricTable,
    splits: Splits,
    config: EvaluationConfig,
    dataset: str,
    users: Int[np.ndarray, "users"] | None = None,
) -> dict[str, Any]:
    """The content of metrics.json: each mean with its 95% interval, and the paired differences.

    `users` is the user of each row, all of whose rows are drawn together; None: all differ."""
    keys = [(system, protocol) for system in table for protocol in PROTOCOLS]
    pairs = compared_pairs(table)
    # a difference is a column of its own: it is exactly 0 for equal systems, whatever a product rounds
    values = np.column_stack(
        [*(table[system][protocol] for system, protocol in keys), *_ndcg_differences(table, pairs)]
    )
    resampled = resampled_means(values, config.bootstrap, config.seed, users)
    intervals = list(map(interval, values.mean(axis=0).tolist(), resampled.T))
    systems = _by_system(keys, intervals)
    tested = [(*pair, protocol) for pair in pairs for protocol in PROTOCOLS]
    first = len(keys) * len(METRICS)
    differences = [
        _difference(*test, systems, found, two_sided_p(column))
        for test, found, column in zip(tested, intervals[first:], resampled.T[first:], strict=True)
    ]
    return {
        "dataset": dataset,
        "users": len(values) if users is None else len(np.unique(users)),
        "items": splits.num_items,
        "candidates": splits.candidates["test"].items.shape[1],
        "shuffles": config.shuffles,
        "chance": _chance(splits),
        "systems": systems,
        "differences": differences,
    }


def _chance(splits: Splits) -> dict[str, float]:
    """HR@10 of a random ranking."""
    sizes = {"hr@10": splits.candidates["test"].items.shape[1], "hr@10_full": splits.num_items}
    return {name: min(1.0, 10 / size) for name, size in sizes.items()}


def compared_pairs(table: MetricTable) -> list[tuple[str, str]]:
    """The pairs whose differences are reported: those with recommender or student, and what order is worth."""
    originals = [name for name in table if not name.endswith(SHUFFLED)]
    pairs = [(main, name) for main in MAIN for name in originals if name != main]
    pairs += [("teacher", "markov"), ("markov", "markov_unordered")]
    pairs += [(f"{name}{SHUFFLED}", name) for name in originals]
    return [pair for pair in pairs if set(pair) <= table.keys()]


def summarise_lists(lists: dict[str, Lists], splits: Splits) -> dict[str, dict[str, float]]:
    """Coverage, novelty and Gini coefficient of each system's lists, against the training interactions."""
    counts = np.bincount(splits.train.items, minlength=splits.num_items + 1)
    return {name: list_metrics(each, counts, len(splits.train)) for name, each in lists.items()}


def _by_system(
    keys: list[tuple[str, str]], intervals: list[Interval]
) -> dict[str, dict[str, dict[str, Any]]]:
    """The intervals of each system, protocol and metric; those of a key are len(METRICS) in a row."""
    systems: dict[str, dict[str, dict[str, Any]]] = {}
    for place, (system, protocol) in enumerate(keys):
        columns = intervals[place * len(METRICS) : (place + 1) * len(METRICS)]
        systems.setdefault(system, {})[protocol] = {
            metric: column.as_dict() for metric, column in zip(METRICS, columns, strict=True)
        }
    return systems


def _difference(
    one: str, other: str, protocol: str, systems: dict[str, Any], difference: Interval, p: float
) -> dict[str, Any]:
    """A paired difference of NDCG@10; `relative` is its share of the value of `other`, 0 if that is 0."""
    base = systems[other][protocol]["ndcg@10"]["value"]
    return {
        "a": one,
        "b": other,
        "protocol": protocol,
        "metric": "ndcg@10",
        **difference.as_dict(),
        "relative": difference.value / base if base else 0.0,
        "p": p,
    }


def _ndcg_differences(
    table: MetricTable, pairs: list[tuple[str, str]]
) -> list[Float[np.ndarray, "users"]]:
    """The difference of each pair of systems in NDCG@10, by user."""
    at = METRICS.index("ndcg@10")
    return [
        table[first][protocol][:, at] - table[second][protocol][:, at]
        for first, second in pairs
        for protocol in PROTOCOLS
    ]


def cosine(
    first: Float[np.ndarray, "users size"], second: Float[np.ndarray, "users size"]
) -> Float[np.ndarray, "users"]:
    """Cosine similarity of each pair of rows."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / np.maximum(norms, 1e-12)
