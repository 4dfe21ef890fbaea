"""Gates: bounds of params.yaml on the student's quality and its use of order.

A gate looks at both rankings, among the candidates and among all items, and fails if it fails in one of them. It fails
in a ranking only if the whole 95% interval lies beyond its bound, so that noise does not fail a retraining.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from llmsrec.core.config import Share
from llmsrec.evaluation.bootstrap import Interval, interval, resampled_means
from llmsrec.evaluation.per_user import METRICS, EvaluationConfig, UserMetrics
from llmsrec.evaluation.systems import baselines, label

GateName = Literal["order", "similarity", "popularity", "baseline", "teacher", "worth"]
GATES: tuple[GateName, ...] = get_args(GateName)
PLACES = {"sampled": "among candidates", "full": "among all items"}

Column = Float[np.ndarray, "users"]


@dataclass(frozen=True)
class GatesConfig:
    """A gate outside `errors` is a warning."""

    errors: list[GateName]
    order_share: Share
    similarity: Share
    popularity_margin: Share
    baseline_margin: Share
    teacher_margin: Share


@dataclass(frozen=True)
class Finding:
    """What a gate found in one ranking."""

    passed: bool
    margin: Interval  # distance to the bound; negative beyond it
    observed: str


Judged = tuple[str, list[Finding]]  # the condition, and what was found


@dataclass(frozen=True)
class Gate:
    """The result of one gate."""

    name: GateName
    severity: Literal["error", "warn"]
    condition: str
    findings: list[Finding]

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The form of a result in a validation report; `margin` is that of the worst finding."""
        worst = min(self.findings, key=lambda finding: (finding.passed, finding.margin.high))
        return {
            "name": self.name,
            "success": self.passed,
            "severity": self.severity,
            "description": self.condition,
            "observed": "; ".join(f.observed + _range(f.margin) for f in self.findings),
            "margin": worst.margin.as_dict(),
        }


def evaluate_gates(
    metrics: UserMetrics, gates: GatesConfig, config: EvaluationConfig
) -> dict[str, Any]:
    """The student's gates as a validation report; those on order need shuffled runs."""
    rivals: dict[GateName, tuple[list[str], float]] = {
        "popularity": (["popularity"], gates.popularity_margin),
        "baseline": (
            [name for name in baselines() if name in metrics.table],
            gates.baseline_margin,
        ),
        "teacher": (["teacher"], gates.teacher_margin),
    }
    found = {name: _not_below(metrics, config, name, *rivals[name]) for name in rivals}
    if "student_shuffled" in metrics.table:
        found = {
            "order": _order(metrics, gates, config),
            "similarity": _similarity(metrics, gates, config),
            **found,
        }
    if "recommender_without_student" in metrics.table:
        found["worth"] = _worth(metrics, config)
    results = [
        Gate(name, "error" if name in gates.errors else "warn", condition, findings)
        for name, (condition, findings) in found.items()
    ]
    failed = [gate for gate in results if not gate.passed and gate.severity == "error"]
    return {"success": not failed, "results": [gate.as_dict() for gate in results]}


def _order(metrics: UserMetrics, gates: GatesConfig, config: EvaluationConfig) -> Judged:
    share = gates.order_share
    findings = []
    for protocol, place in PLACES.items():
        student, teacher = (
            _ndcg(metrics, name, protocol) - _ndcg(metrics, f"{name}_shuffled", protocol)
            for name in ("student", "teacher")
        )
        margin, teacher_cost = (
            _interval(student - share * teacher, metrics, config),
            _interval(teacher, metrics, config),
        )
        observed = f"shuffling costs the student {student.mean():.4f} of NDCG@10 {place}"
        if teacher_cost.low > 0:
            ratio = student.mean() / teacher.mean()
            observed += f" and its teacher {teacher_cost.value:.4f}: {ratio:.0%} of it"
        else:
            observed += "; its teacher loses nothing significantly, so there is no order to learn"
        findings.append(Finding(teacher_cost.low <= 0 or margin.high >= 0, margin, observed))
    condition = f"shuffling costs the student at least {share:.0%} of what it costs its teacher"
    return condition, findings


def _similarity(metrics: UserMetrics, gates: GatesConfig, config: EvaluationConfig) -> Judged:
    margin = _interval(gates.similarity - metrics.similarity["student"], metrics, config)
    mean = float(metrics.similarity["student"].mean())
    condition = f"cosine of a user with the same user shuffled is at most {gates.similarity}"
    return condition, [Finding(margin.high >= 0, margin, f"the mean cosine is {mean:.3f}")]


def _not_below(
    metrics: UserMetrics,
    config: EvaluationConfig,
    name: GateName,
    rivals: list[str],
    allowed: float,
) -> Judged:
    """The student's NDCG@10 is not below the best rival's by more than the share `allowed`, in either ranking."""
    findings = []
    for protocol, place in PLACES.items():
        columns = {rival: _ndcg(metrics, rival, protocol) for rival in rivals}
        best = max(columns, key=lambda rival: columns[rival].mean())
        student = _ndcg(metrics, "student", protocol)
        margin = _interval(student - (1 - allowed) * columns[best], metrics, config)
        observed = (
            f"NDCG@10 {place} is {student.mean():.4f} for the student, "
            f"{columns[best].mean():.4f} for {label(best)}"
        )
        findings.append(Finding(margin.high >= 0, margin, observed))
    within = f" by more than {allowed:.0%}" if allowed else ""
    other = "the best baseline" if name == "baseline" else name
    return f"the student is not worse than {other}{within}", findings


def _worth(metrics: UserMetrics, config: EvaluationConfig) -> Judged:
    """The recommender with the student is significantly better than the one without, in both rankings."""
    findings = []
    for protocol, place in PLACES.items():
        values = [
            _ndcg(metrics, name, protocol)
            for name in ("recommender", "recommender_without_student")
        ]
        margin = _interval(values[0] - values[1], metrics, config)
        observed = f"NDCG@10 {place} is {values[0].mean():.4f} with the student, {values[1].mean():.4f} without"
        findings.append(Finding(margin.low > 0, margin, observed))
    return "the student makes the recommender significantly better", findings


def _ndcg(metrics: UserMetrics, system: str, protocol: str) -> Column:
    return metrics.table[system][protocol][:, METRICS.index("ndcg@10")]


def _interval(column: Column, metrics: UserMetrics, config: EvaluationConfig) -> Interval:
    means = resampled_means(column[:, None], config.bootstrap, config.seed, metrics.user_indices)
    return interval(float(column.mean()), means[:, 0])


def _range(margin: Interval) -> str:
    return f" (margin {margin.value:+.4f}, 95% interval {margin.low:+.4f} to {margin.high:+.4f})"
