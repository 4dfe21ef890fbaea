"""Does this student understand sequence well enough to be used? Bounds of params.yaml, each with its verdict.

A gate fails where the whole 95% interval lies beyond its bound: a retraining is not refused for noise.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from llmsrec.core.config import Share
from llmsrec.evaluation.bootstrap import Interval, interval, resampled_means
from llmsrec.evaluation.per_user import METRICS, EvaluationConfig, Found

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
    """What was held against a bound."""

    name: str
    passed: bool
    severity: Severity
    asked: str
    verdict: str
    margin: Interval  # how far inside the bound; below 0 it is beyond

    def as_dict(self) -> dict[str, Any]:
        """In the form of a validation report's result."""
        return {
            "name": self.name,
            "success": self.passed,
            "severity": self.severity,
            "description": self.asked,
            "observed": self.verdict,
            "margin": self.margin.as_dict(),
        }


def judge(found: Found, gates: GatesConfig, config: EvaluationConfig) -> dict[str, Any]:
    """The gates of the student as a validation report; without shuffled runs those on order are left out."""
    made = [
        _against(found, config, "popularity", gates.popularity_margin, gates.popularity_severity),
        _against(found, config, "teacher", gates.teacher_margin, gates.teacher_severity),
    ]
    if "student_shuffled" in found.table:
        made = [_order(found, gates, config), _similarity(found, gates, config), *made]
    failed = [gate for gate in made if not gate.passed and gate.severity == "error"]
    return {"success": not failed, "results": [gate.as_dict() for gate in made]}


def _order(found: Found, gates: GatesConfig, config: EvaluationConfig) -> Gate:
    share = gates.order_share
    cost = {
        name: _ndcg(found, name) - _ndcg(found, f"{name}_shuffled")
        for name in ("student", "teacher")
    }
    margin = _interval(cost["student"] - share * cost["teacher"], config)
    teachers = _interval(cost["teacher"], config)
    verdict = f"shuffling costs the student {cost['student'].mean():.4f} of NDCG@10"
    if teachers.low > 0:
        part = cost["student"].mean() / cost["teacher"].mean()
        verdict += f" and its teacher {teachers.value:.4f}: {part:.0%} of it"
    else:
        verdict += "; its teacher loses nothing for sure, so there is no order to read"
    return Gate(
        name="order",
        passed=teachers.low <= 0 or margin.high >= 0,
        severity=gates.order_severity,
        asked=f"shuffling costs the student at least {share:.0%} of what it costs its teacher",
        verdict=verdict + _range(margin),
        margin=margin,
    )


def _similarity(found: Found, gates: GatesConfig, config: EvaluationConfig) -> Gate:
    margin = _interval(gates.similarity - found.similarity["student"], config)
    mean = float(found.similarity["student"].mean())
    return Gate(
        name="similarity",
        passed=margin.high >= 0,
        severity=gates.similarity_severity,
        asked=f"cosine of a user with the same user shuffled is at most {gates.similarity}",
        verdict=f"the mean cosine is {mean:.3f}" + _range(margin),
        margin=margin,
    )


def _against(
    found: Found, config: EvaluationConfig, other: str, allowed: float, severity: Severity
) -> Gate:
    """The student is not worse than another, but for a share that is allowed."""
    student, reference = _ndcg(found, "student"), _ndcg(found, other)
    margin = _interval(student - (1 - allowed) * reference, config)
    within = f" by more than {allowed:.0%}" if allowed else ""
    return Gate(
        name=other,
        passed=margin.high >= 0,
        severity=severity,
        asked=f"the student is not worse than {other}{within}",
        verdict=f"NDCG@10 is {student.mean():.4f} for the student, {reference.mean():.4f} for {other}"
        + _range(margin),
        margin=margin,
    )


def _ndcg(found: Found, system: str) -> Column:
    return found.table[system]["sampled"][:, METRICS.index("ndcg@10")]


def _interval(column: Column, config: EvaluationConfig) -> Interval:
    means = resampled_means(column[:, None], config.bootstrap, config.seed)
    return interval(float(column.mean()), means[:, 0])


def _range(margin: Interval) -> str:
    return f" (margin {margin.value:+.4f}, 95% interval {margin.low:+.4f} to {margin.high:+.4f})"
