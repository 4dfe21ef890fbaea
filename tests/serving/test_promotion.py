"""The rule by which a challenger takes the champion's place, on ranks written by hand."""

import math
from typing import Any

import numpy as np
import pytest

from llmsrec.evaluation.per_user import EvaluationConfig
from llmsrec.ranking.metrics import Ranks
from llmsrec.ranking.protocol import Evaluation
from llmsrec.serving.promotion import PromotionConfig, compare, decide

CONFIG = EvaluationConfig(bootstrap=400, shuffles=0, shuffle_window=None, seed=0)
HOLD: dict[str, Any] = {"results": []}


def evaluation(better: list[int]) -> Evaluation:
    places = np.array(better)
    ranks = Ranks(places, np.zeros_like(places), np.full(len(places), 100))
    nothing = np.empty((len(places), 0))
    return Evaluation(ranks, ranks, nothing, nothing.astype(np.int64))


def compared(challenger: Evaluation, champion: Evaluation, margin: float) -> dict[str, Any]:
    """Each target is that of another user."""
    return compare(challenger, champion, np.arange(len(challenger.sampled)), margin, CONFIG)


def gate(severity: str) -> dict[str, Any]:
    return {"name": "order", "success": False, "severity": severity, "observed": "it lost 0.0"}


def knobs(margin: float = 0.0, gates: Any = "error") -> PromotionConfig:
    return PromotionConfig(margin, gates)


def test_numbers_are_means_over_the_same_users() -> None:
    found = compared(evaluation([0, 1]), evaluation([0, 0]), 0.0)["full"]
    second = 1 / math.log2(3)
    assert found["challenger"] == pytest.approx((1 + second) / 2)
    assert found["champion"] == 1
    assert found["difference"]["value"] == pytest.approx((second - 1) / 2)


def test_without_a_champion_only_the_gates_decide() -> None:
    assert decide(HOLD, None, knobs()).promote
    refused = decide({"results": [gate("error")]}, None, knobs())
    assert not refused.promote
    assert "order: it lost 0.0" in refused.why


@pytest.mark.parametrize(
    ("asked", "severity", "promote"),
    [
        ("error", "error", False),
        ("error", "warn", True),
        ("all", "warn", False),
        ("none", "error", True),
    ],
)
def test_gates_of_the_asked_severity_must_hold(asked: str, severity: str, promote: bool) -> None:
    assert decide({"results": [gate(severity)]}, None, knobs(gates=asked)).promote is promote


def test_a_promotion_names_the_gates_that_fail_without_stopping_it() -> None:
    assert decide(HOLD, None, knobs()).why.startswith("the gates hold and")
    same = compared(evaluation([0] * 50), evaluation([0] * 50), 0.5)
    for comparison in (None, same):
        decision = decide({"results": [gate("warn")]}, comparison, knobs(0.5))
        assert decision.promote
        assert "but not all (order: it lost 0.0)" in decision.why


def test_a_significantly_worse_challenger_is_refused_with_the_numbers() -> None:
    comparison = compared(evaluation([1] * 50), evaluation([0] * 50), 0.0)
    decision = decide(HOLD, comparison, knobs())
    assert not decision.promote
    assert "worse than the champion: sampled NDCG@10 0.6309 against 1.0000 (-0.3691" in decision.why


def test_a_loss_beyond_the_margin_must_be_ruled_out() -> None:
    """Forty users, as often better as worse: nothing is shown, and a tenth of the champion is within the noise."""
    for margin, promote in ((0.1, False), (0.5, True)):
        mixed = compared(evaluation([0, 3] * 20), evaluation([3, 0] * 20), margin)
        assert mixed["sampled"]["difference"]["low"] < 0 < mixed["sampled"]["difference"]["high"]
        decision = decide(HOLD, mixed, knobs(margin))
        assert decision.promote is promote
        assert f"a loss of more than {margin:.0%}" in decision.why
        assert ("cannot be ruled out" in decision.why) is not promote


def test_more_targets_of_the_same_users_are_no_more_evidence() -> None:
    """Forty users with a hundred targets each, all of them alike, are forty users."""
    new, old = evaluation([0] * 2000 + [3] * 2000), evaluation([3] * 2000 + [0] * 2000)
    clustered = compare(new, old, np.repeat(np.arange(40), 100), 0.1, CONFIG)
    assert not decide(HOLD, clustered, knobs(0.1)).promote
    few = compared(evaluation([0] * 20 + [3] * 20), evaluation([3] * 20 + [0] * 20), 0.1)
    for side in ("low", "high"):
        one, other = (found["full"]["allowed"][side] for found in (clustered, few))
        assert one == pytest.approx(other, abs=1e-6)


def test_more_users_are_more_evidence() -> None:
    mixed = compared(evaluation([0, 3] * 2000), evaluation([3, 0] * 2000), 0.1)
    assert decide(HOLD, mixed, knobs(0.1)).promote


def test_a_small_significant_loss_is_refused_within_the_margin() -> None:
    places = [0] * 90 + [1] * 10
    loss = compared(evaluation(places), evaluation([0] * 100), 0.5)
    decision = decide(HOLD, loss, knobs(0.5))
    assert not decision.promote
    assert "worse than the champion: sampled NDCG@10 0.9631 against 1.0000" in decision.why
