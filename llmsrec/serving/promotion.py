"""May the challenger take the champion's place? Both rank the same users of today, user by user (docs/decisions/0009).

It is refused where a gate fails, where it is worse for sure (the whole 95% interval of the difference lies below zero),
and where a loss beyond the margin cannot be ruled out (the interval reaches past it): then small losses cannot add up.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

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
    challenger: Evaluation, champion: Evaluation, margin: float, config: EvaluationConfig
) -> dict[str, dict[str, Any]]:
    """NDCG@10 among the candidates and among all items; `allowed` is how far the challenger is inside the margin."""
    found = {}
    for protocol in ("sampled", "full"):
        ranks = [getattr(evaluation, protocol) for evaluation in (challenger, champion)]
        mine, theirs = (ndcg(part, 10) for part in ranks)
        gap, allowed = mine - theirs, mine - (1 - margin) * theirs
        drawn = resampled_means(np.column_stack([gap, allowed]), config.bootstrap, config.seed)
        found[protocol] = {
            "challenger": float(mine.mean()),
            "champion": float(theirs.mean()),
            "difference": interval(float(gap.mean()), drawn[:, 0]).as_dict(),
            "allowed": interval(float(allowed.mean()), drawn[:, 1]).as_dict(),
        }
    return found


def decide(
    gates: dict[str, Any], comparison: dict[str, dict[str, Any]] | None, config: PromotionConfig
) -> Decision:
    """Without a champion there is no comparison, and the gates alone decide."""
    if failed := _failed(gates, config):
        told = "; ".join(f"{gate['name']}: {gate['observed']}" for gate in failed)
        return Decision(False, f"a gate of the evaluation does not hold ({told})")
    if comparison is None:
        return Decision(True, "the gates hold and there is no champion yet")
    numbers = ", ".join(_numbers(name, found) for name, found in comparison.items())
    if any(found["difference"]["high"] < 0 for found in comparison.values()):
        return Decision(False, f"it is worse than the champion: {numbers}")
    loss = f"a loss of more than {config.margin:.0%}"
    if any(found["allowed"]["low"] < 0 for found in comparison.values()):
        return Decision(False, f"{loss} against the champion cannot be ruled out: {numbers}")
    return Decision(
        True,
        f"the gates hold, it is not worse than the champion, and {loss} is ruled out: {numbers}",
    )


def _failed(gates: dict[str, Any], config: PromotionConfig) -> list[dict[str, Any]]:
    asked = {"error": ("error",), "all": ("error", "warn"), "none": ()}[config.gates]
    return [gate for gate in gates["results"] if not gate["success"] and gate["severity"] in asked]


def _numbers(protocol: str, found: dict[str, Any]) -> str:
    gap = found["difference"]
    return (
        f"{protocol} NDCG@10 {found['challenger']:.4f} against {found['champion']:.4f} "
        f"({gap['value']:+.4f}, 95% interval {gap['low']:+.4f} to {gap['high']:+.4f})"
    )
