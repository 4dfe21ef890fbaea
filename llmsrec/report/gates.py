"""Gates: bounds of params.yaml on the student's quality and its use of order.

A gate fails only if the whole 95% interval lies beyond its bound, so that noise does not fail a retraining.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from llmsrec.core.config import Share
from llmsrec.evaluation.bootstrap import Interval, interval, resampled_means
from llmsrec.evaluation.per_user import METRICS, EvaluationConfig, UserMetrics

GATES = ("order", "similarity", "popularity", "teacher")

Severity = Literal["error", "warn"]
Column = Float[np.ndarray, "users"]


@dataclass(frozen=True)
class GatesConfig:
    order_share: Share
    order_severity: Severity
    similarity: Share
    similarity_severity: Severity
    popularity_margin: Share
    popularity_severity: Severity
    teacher_margin: Share
    teacher_severity: Severity


@dataclass(frozen=True)
class Gate:
    """The result of one gate."""

    name: str
    passed: bool
    severity: Severity
    condition: str
    observed: str
    margin: Interval  # distance to the bound; negative beyond it

    def as_dict(self) -> dict[str, Any]:
        """The form of a result in a validation report."""
        return {
            "name": self.name,
            "success": self.passed,
            "severity": self.severity,
            "description": self.condition,
            "observed": self.observed,
            "margin": self.margin.as_dict(),
        }


def evaluate_gates(
    metrics: UserMetrics, gates: GatesConfig, config: EvaluationConfig
) -> dict[str, Any]:
    """The student's gates as a validation report; those on order need shuffled runs."""
    results = [
        _not_below(
            metrics, config, "popularity", gates.popularity_margin, gates.popularity_severity
        ),
        _not_below(metrics, config, "teacher", gates.teacher_margin, gates.teacher_severity),
    ]
    if "student_shuffled" in metrics.table:
        results = [_order(metrics, gates, config), _similarity(metrics, gates, config), *results]
    failed = [gate for gate in results if not gate.passed and gate.severity == "error"]
    return {"success": not failed, "results": [gate.as_dict() for gate in results]}


def _order(metrics: UserMetrics, gates: GatesConfig, config: EvaluationConfig) -> Gate:
    share = gates.order_share
    cost = {
        name: _ndcg(metrics, name) - _ndcg(metrics, f"{name}_shuffled")
        for name in ("student", "teacher")
    }
    margin = _interval(cost["student"] - share * cost["teacher"], config)
    teacher_cost = _interval(cost["teacher"], config)
    observed = f"shuffling costs the student {cost['student'].mean():.4f} of NDCG@10"
    if teacher_cost.low > 0:
        ratio = cost["student"].mean() / cost["teacher"].mean()
        observed += f" and its teacher {teacher_cost.value:.4f}: {ratio:.0%} of it"
    else:
        observed += "; its teacher loses nothing significantly, so there is no order to learn"
    return Gate(
        name="order",
        passed=teacher_cost.low <= 0 or margin.high >= 0,
        severity=gates.order_severity,
        condition=f"shuffling costs the student at least {share:.0%} of what it costs its teacher",
        observed=observed + _range(margin),
        margin=margin,
    )


def _similarity(metrics: UserMetrics, gates: GatesConfig, config: EvaluationConfig) -> Gate:
    margin = _interval(gates.similarity - metrics.similarity["student"], config)
    mean = float(metrics.similarity["student"].mean())
    return Gate(
        name="similarity",
        passed=margin.high >= 0,
        severity=gates.similarity_severity,
        condition=f"cosine of a user with the same user shuffled is at most {gates.similarity}",
        observed=f"the mean cosine is {mean:.3f}" + _range(margin),
        margin=margin,
    )


def _not_below(
    metrics: UserMetrics, config: EvaluationConfig, other: str, allowed: float, severity: Severity
) -> Gate:
    """The student's NDCG@10 is not below another system's by more than the share `allowed`."""
    student, reference = _ndcg(metrics, "student"), _ndcg(metrics, other)
    margin = _interval(student - (1 - allowed) * reference, config)
    within = f" by more than {allowed:.0%}" if allowed else ""
    return Gate(
        name=other,
        passed=margin.high >= 0,
        severity=severity,
        condition=f"the student is not worse than {other}{within}",
        observed=f"NDCG@10 is {student.mean():.4f} for the student, {reference.mean():.4f} for {other}"
        + _range(margin),
        margin=margin,
    )


def _ndcg(metrics: UserMetrics, system: str) -> Column:
    return metrics.table[system]["sampled"][:, METRICS.index("ndcg@10")]


def _interval(column: Column, config: EvaluationConfig) -> Interval:
    means = resampled_means(column[:, None], config.bootstrap, config.seed)
    return interval(float(column.mean()), means[:, 0])


def _range(margin: Interval) -> str:
    return f" (margin {margin.value:+.4f}, 95% interval {margin.low:+.4f} to {margin.high:+.4f})"
