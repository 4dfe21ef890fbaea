"""Whether the challenger replaces the champion, from the ranks of the same test users (docs/decisions/0009).

It is refused if a gate fails, if it is significantly worse (the whole 95% interval of the difference is below zero), or
if a loss beyond the margin cannot be ruled out (the interval reaches below the margin), so that small losses do not
add up.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from llmsrec.core.config import Share
from llmsrec.evaluation.bootstrap import interval, resampled_means
from llmsrec.evaluation.per_user import EvaluationConfig
from llmsrec.ranking.metrics import ndcg
from llmsrec.ranking.protocol import Evaluation


@dataclass(frozen=True)
class PromotionConfig:
    margin: Share
    gates: Literal["error", "all", "none"]


@dataclass(frozen=True)
class Decision:
    promote: bool
    why: str


def compare(
    challenger: Evaluation,
    champion: Evaluation,
    users: Int[np.ndarray, "targets"],
    margin: float,
    config: EvaluationConfig,
) -> dict[str, dict[str, Any]]:
    """NDCG@10 by protocol; `users` is the user of each target.

    `allowed` is the distance of the challenger to the margin, negative beyond it."""
    comparison = {}
    for protocol in ("sampled", "full"):
        ranks = [getattr(evaluation, protocol) for evaluation in (challenger, champion)]
        new, old = (ndcg(part, 10) for part in ranks)
        gap, allowed = new - old, new - (1 - margin) * old
        columns = np.column_stack([gap, allowed])
        means = resampled_means(columns, config.bootstrap, config.seed, users)
        comparison[protocol] = {
            "challenger": float(new.mean()),
            "champion": float(old.mean()),
            "difference": interval(float(gap.mean()), means[:, 0]).as_dict(),
            "allowed": interval(float(allowed.mean()), means[:, 1]).as_dict(),
        }
    return comparison


def decide(
    gates: dict[str, Any], comparison: dict[str, dict[str, Any]] | None, config: PromotionConfig
) -> Decision:
    """`comparison` is None without a champion; the gates alone decide then."""
    if failed := _failed(gates, config):
        failures = "; ".join(f"{gate['name']}: {gate['observed']}" for gate in failed)
        return Decision(False, f"a gate of the evaluation does not hold ({failures})")
    if comparison is None:
        return Decision(True, "the gates hold and there is no champion yet")
    numbers = ", ".join(_ndcg_text(name, row) for name, row in comparison.items())
    if any(row["difference"]["high"] < 0 for row in comparison.values()):
        return Decision(False, f"it is worse than the champion: {numbers}")
    loss = f"a loss of more than {config.margin:.0%}"
    if any(row["allowed"]["low"] < 0 for row in comparison.values()):
        return Decision(False, f"{loss} against the champion cannot be ruled out: {numbers}")
    return Decision(
        True,
        f"the gates hold, it is not worse than the champion, and {loss} is ruled out: {numbers}",
    )


def _failed(gates: dict[str, Any], config: PromotionConfig) -> list[dict[str, Any]]:
    required = {"error": ("error",), "all": ("error", "warn"), "none": ()}[config.gates]
    return [
        gate for gate in gates["results"] if not gate["success"] and gate["severity"] in required
    ]


def _ndcg_text(protocol: str, row: dict[str, Any]) -> str:
    gap = row["difference"]
    return (
        f"{protocol} NDCG@10 {row['challenger']:.4f} against {row['champion']:.4f} "
        f"({gap['value']:+.4f}, 95% interval {gap['low']:+.4f} to {gap['high']:+.4f})"
    )
