"""Systems -> per-user metrics -> the numbers of metrics.json, each with its interval, and paired differences."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from llmsrec.core.config import Count, Natural
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Part, Splits
from llmsrec.evaluation.bootstrap import interval, resampled_means, two_sided_p
from llmsrec.ranking.metrics import Ranks, hit_rate, mrr, ndcg
from llmsrec.ranking.protocol import Evaluation, evaluate
from llmsrec.ranking.ranker import Ranker, VectorRanker

PROTOCOLS = ("sampled", "full")
METRICS = ("hr@1", "hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr")
COMPARED = [
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


Table = dict[str, dict[str, Float[np.ndarray, "users metrics"]]]  # system -> protocol -> values


@dataclass(frozen=True)
class Found:
    """What was found of each test user, in the order of the stored candidates."""

    table: Table
    similarity: dict[
        str, Float[np.ndarray, "users"]
    ]  # of a user and the same user shuffled (SPEC E5)
    users: dict[str, Float[np.ndarray, "users _"]]  # the vectors of those models that have some


def evaluate_all(rankers: dict[str, Ranker], splits: Splits, config: EvaluationConfig) -> Found:
    """Every system on the test users; `shuffled` rows see the same history in another order (SPEC E4)."""
    true = {
        name: evaluate(ranker, splits, "test", scores_mb=config.scores_mb)
        for name, ranker in rankers.items()
    }
    table = {name: _values(found) for name, found in true.items()}
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
                [cosine(true[name].users, run.users) for run in runs], axis=0
            )
    vectors = {name: found.users for name, found in true.items() if found.users.shape[1]}
    return Found(table, similarity, vectors)


def shuffled_histories(splits: Splits, part: Part, config: EvaluationConfig) -> list[Sequences]:
    """The whole history permuted, or its last `shuffle_window` purchases; each model then cuts its own window."""
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
    cuts = {"hr": hit_rate, "ndcg": ndcg}
    columns = []
    for metric in METRICS:
        name, _, cut = metric.partition("@")
        columns.append(cuts[name](ranks, int(cut)) if cut else mrr(ranks))
    return np.stack(columns, axis=1)


def summarise(
    table: Table, splits: Splits, config: EvaluationConfig, dataset: str
) -> dict[str, Any]:
    """metrics.json: each mean with its 95% interval, and the paired differences."""
    keys = [(system, protocol) for system in table for protocol in PROTOCOLS]
    pairs = [pair for pair in COMPARED if set(pair) <= table.keys()]
    # a difference is resampled as a column of its own: that of equal systems is 0, whatever a product rounds
    values = np.column_stack(
        [*(table[system][protocol] for system, protocol in keys), *_gaps(table, pairs)]
    )
    resampled = resampled_means(values, config.bootstrap, config.seed)
    intervals = [
        interval(float(mean), column)
        for mean, column in zip(values.mean(axis=0), resampled.T, strict=True)
    ]
    systems: dict[str, dict[str, dict[str, Any]]] = {}
    for place, (system, protocol) in enumerate(keys):
        found = intervals[place * len(METRICS) : (place + 1) * len(METRICS)]
        systems.setdefault(system, {})[protocol] = {
            metric: row.as_dict() for metric, row in zip(METRICS, found, strict=True)
        }
    differences = []
    rows = ((*pair, protocol) for pair in pairs for protocol in PROTOCOLS)
    for at, (first, second, protocol) in enumerate(rows, start=len(keys) * len(METRICS)):
        base = systems[second][protocol]["ndcg@10"]["value"]
        differences.append(
            {
                "a": first,
                "b": second,
                "protocol": protocol,
                "metric": "ndcg@10",
                **intervals[at].as_dict(),
                "relative": intervals[at].value / base if base else 0.0,
                "p": two_sided_p(resampled[:, at]),
            }
        )
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


def _gaps(table: Table, pairs: list[tuple[str, str]]) -> list[Float[np.ndarray, "users"]]:
    """What each pair differs by in NDCG@10, user by user."""
    at = METRICS.index("ndcg@10")
    return [
        table[first][protocol][:, at] - table[second][protocol][:, at]
        for first, second in pairs
        for protocol in PROTOCOLS
    ]


def cosine(
    first: Float[np.ndarray, "users size"], second: Float[np.ndarray, "users size"]
) -> Float[np.ndarray, "users"]:
    """Row by row: how alike a user's representation stays when the history is shuffled (SPEC E5)."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / np.maximum(norms, 1e-12)
