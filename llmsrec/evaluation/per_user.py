"""Metrics of each system and user, and their means with intervals and paired differences for metrics.json."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from llmsrec.core.config import Count, Natural
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Part, Splits
from llmsrec.evaluation.bootstrap import Interval, interval, resampled_means, two_sided_p
from llmsrec.ranking.metrics import Ranks, hit_rate, mrr, ndcg
from llmsrec.ranking.protocol import Evaluation, evaluate
from llmsrec.ranking.ranker import Ranker, VectorRanker

PROTOCOLS = ("sampled", "full")
METRICS = ("hr@1", "hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr")
COMPARED_PAIRS = [
    ("recommender", "teacher_content"),
    ("recommender", "teacher"),
    ("student", "teacher"),
    ("student", "popularity"),
    ("teacher", "markov"),
    ("markov", "markov_unordered"),
    ("teacher_shuffled", "teacher"),
    ("student_shuffled", "student"),
]


@dataclass(frozen=True)
class EvaluationConfig:
    bootstrap: Count
    shuffles: Natural
    shuffle_window: Count | None
    scores_mb: Count
    seed: int


MetricTable = dict[
    str, dict[str, Float[np.ndarray, "users metrics"]]
]  # system -> protocol -> values


@dataclass(frozen=True)
class UserMetrics:
    """Values of each test user in the order of the stored candidates, by system.

    `similarity` is the cosine of a user and the same user shuffled (specification E5), `users` are the vectors of the
    systems that have some."""

    table: MetricTable
    similarity: dict[str, Float[np.ndarray, "users"]]
    users: dict[str, Float[np.ndarray, "users _"]]


def evaluate_all(
    rankers: dict[str, Ranker], splits: Splits, config: EvaluationConfig
) -> UserMetrics:
    """Evaluate every system on the test users, teacher and student also on shuffled histories (specification E4)."""
    evaluations = {
        name: evaluate(ranker, splits, "test", scores_mb=config.scores_mb)
        for name, ranker in rankers.items()
    }
    table = {name: _values(evaluation) for name, evaluation in evaluations.items()}
    similarity: dict[str, Float[np.ndarray, users]] = {}
    for name in ("teacher", "student"):
        if name not in rankers or not config.shuffles:
            continue
        runs = [
            evaluate(rankers[name], splits, "test", histories=histories, scores_mb=config.scores_mb)
            for histories in shuffled_histories(splits, "test", config)
        ]
        values = [_values(run) for run in runs]
        table[f"{name}_shuffled"] = {
            protocol: np.mean([run[protocol] for run in values], axis=0) for protocol in PROTOCOLS
        }
        if isinstance(rankers[name], VectorRanker):
            similarity[name] = np.mean(
                [cosine(evaluations[name].users, run.users) for run in runs], axis=0
            )
    vectors = {name: run.users for name, run in evaluations.items() if run.users.shape[1]}
    return UserMetrics(table, similarity, vectors)


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
    table: MetricTable, splits: Splits, config: EvaluationConfig, dataset: str
) -> dict[str, Any]:
    """The content of metrics.json: each mean with its 95% interval, and the paired differences."""
    keys = [(system, protocol) for system in table for protocol in PROTOCOLS]
    pairs = [pair for pair in COMPARED_PAIRS if set(pair) <= table.keys()]
    # a difference is a column of its own: it is exactly 0 for equal systems, whatever a product rounds
    values = np.column_stack(
        [*(table[system][protocol] for system, protocol in keys), *_ndcg_differences(table, pairs)]
    )
    resampled = resampled_means(values, config.bootstrap, config.seed)
    intervals = [
        interval(float(mean), column)
        for mean, column in zip(values.mean(axis=0), resampled.T, strict=True)
    ]
    systems = _by_system(keys, intervals)
    tested = [(*pair, protocol) for pair in pairs for protocol in PROTOCOLS]
    columns = range(len(keys) * len(METRICS), values.shape[1])
    differences = [
        _difference(*test, systems, intervals[column], two_sided_p(resampled[:, column]))
        for test, column in zip(tested, columns, strict=True)
    ]
    candidates = splits.candidates["test"].items.shape[1]
    return {
        "dataset": dataset,
        "users": len(values),
        "items": splits.num_items,
        "candidates": candidates,
        "chance": {
            "hr@10": min(1.0, 10 / candidates),
            "hr@10_full": min(1.0, 10 / splits.num_items),
        },
        "systems": systems,
        "differences": differences,
    }


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
