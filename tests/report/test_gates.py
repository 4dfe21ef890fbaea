"""What is let through and what is not, on users whose numbers are made up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmsrec.core.config import load_section
from llmsrec.evaluation.per_user import METRICS, EvaluationConfig, UserMetrics
from llmsrec.report.gates import GATES, GatesConfig, evaluate_gates

CONFIG = EvaluationConfig(bootstrap=300, shuffles=1, shuffle_window=None, seed=0)
BOUNDS: dict[str, Any] = {
    "errors": ["order", "popularity"], "order_share": 0.5, "similarity": 0.9, "popularity_margin": 0.0,
    "baseline_margin": 0.0, "teacher_margin": 0.1,
}  # fmt: skip
SOUND = {
    "student": 0.5,
    "student_shuffled": 0.4,
    "teacher": 0.5,
    "teacher_shuffled": 0.4,
    "popularity": 0.2,
    "markov": 0.3,
    "recommender_without_student": 0.5,
    "recommender": 0.6,
}


def user_metrics(noise: float = 0.05, similarity: float = 0.7, **means: float) -> UserMetrics:
    """Four hundred users whose means are just these; `full_NAME` is that of NAME among all items, if it differs."""
    draws = np.random.default_rng(1)

    def rows(mean: float) -> np.ndarray:
        spread = draws.standard_normal(400)
        column = mean + noise * (spread - spread.mean())
        return np.repeat(column[:, None], len(METRICS), 1)

    full = {name.removeprefix("full_"): means.pop(name) for name in list(means) if "full_" in name}
    table = {
        name: {"sampled": rows(mean), "full": rows(full.get(name, mean))}
        for name, mean in (SOUND | means).items()
    }
    return UserMetrics(table, {"student": np.full(400, similarity)}, {}, {})


def verdicts(report: dict[str, Any]) -> dict[str, bool]:
    return {result["name"]: result["success"] for result in report["results"]}


def test_a_good_student_passes_every_gate_with_an_observation() -> None:
    report = evaluate_gates(user_metrics(), GatesConfig(**BOUNDS), CONFIG)
    assert report["success"]
    assert verdicts(report) == dict.fromkeys(GATES, True)
    order = report["results"][0]
    assert "costs the student 0.1" in order["observed"]
    assert order["margin"]["low"] < order["margin"]["value"] < order["margin"]["high"]
    assert order["margin"]["value"] == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize(
    ("spoilt", "gate", "fatal"),
    [
        ({"student_shuffled": 0.48}, "order", True),
        ({"similarity": 0.97}, "similarity", False),
        ({"student": 0.15, "student_shuffled": 0.05}, "popularity", True),
        ({"teacher": 0.7, "teacher_shuffled": 0.6}, "teacher", False),
        ({"markov": 0.6}, "baseline", False),
        ({"recommender": 0.5}, "worth", False),
        # in the full ranking alone
        ({"full_recommender": 0.5}, "worth", False),
        ({"full_student_shuffled": 0.48}, "order", True),
        ({"full_popularity": 0.6}, "popularity", True),
        ({"full_markov": 0.6}, "baseline", False),
        ({"full_teacher": 0.7, "full_teacher_shuffled": 0.6}, "teacher", False),
    ],
)
def test_each_gate_fails_for_its_own_reason(
    spoilt: dict[str, float], gate: str, fatal: bool
) -> None:
    report = evaluate_gates(user_metrics(**spoilt), GatesConfig(**BOUNDS), CONFIG)
    assert not verdicts(report)[gate]
    assert report["success"] is not fatal


@pytest.mark.parametrize(
    ("student", "failed"),
    [
        ({}, set()),
        ({"student_shuffled": 0.49}, {"order"}),
        ({"student_shuffled": 0.6}, {"order"}),
        ({"similarity": 0.999}, {"similarity"}),
        ({"student": 0.15, "student_shuffled": 0.05}, {"popularity", "baseline", "teacher"}),
        ({"student": 0.35, "student_shuffled": 0.25}, {"teacher"}),
        ({"full_markov": 0.8}, {"baseline"}),
        # all users alike: it recommends to everybody what is popular
        (
            {"student": 0.2, "student_shuffled": 0.2, "similarity": 1.0},
            {"order", "similarity", "baseline", "teacher"},
        ),
    ],
)
def test_the_default_gates_fail_a_student_that_ignores_order(
    student: dict[str, float], failed: set[str]
) -> None:
    """Far from the bounds of params.yaml, on either side."""
    gates = load_section(GatesConfig, "gates", Path(__file__).parents[2] / "params.yaml")
    passed = verdicts(evaluate_gates(user_metrics(**student), gates, CONFIG))
    assert {name for name in GATES if not passed[name]} == failed


def test_noise_fails_no_gate() -> None:
    """The student stands a little below popularity, within what 400 users can tell."""
    report = evaluate_gates(
        user_metrics(noise=0.5, student=0.195, teacher=0.2, popularity=0.2),
        GatesConfig(**BOUNDS),
        CONFIG,
    )
    assert verdicts(report)["popularity"]


def test_the_order_gate_needs_a_teacher_that_uses_order() -> None:
    report = evaluate_gates(
        user_metrics(teacher_shuffled=0.5, student_shuffled=0.5), GatesConfig(**BOUNDS), CONFIG
    )
    assert verdicts(report)["order"]
    assert "no order to learn" in report["results"][0]["observed"]


def test_without_shuffles_order_is_not_judged() -> None:
    some = user_metrics()
    table = {name: rows for name, rows in some.table.items() if "shuffled" not in name}
    report = evaluate_gates(UserMetrics(table, {}, {}, {}), GatesConfig(**BOUNDS), CONFIG)
    assert set(verdicts(report)) == {"popularity", "baseline", "teacher", "worth"}


def test_the_baseline_of_each_ranking_is_the_best_there() -> None:
    metrics = user_metrics(popularity=0.35, full_popularity=0.1, full_markov=0.6)
    report = evaluate_gates(metrics, GatesConfig(**BOUNDS), CONFIG)
    (gate,) = (result for result in report["results"] if result["name"] == "baseline")
    among_candidates, among_all = gate["observed"].split("; ")
    assert "0.5000 for the student, 0.3500 for Popularity" in among_candidates
    assert "0.5000 for the student, 0.6000 for Markov chain" in among_all
    assert gate["margin"]["value"] == pytest.approx(-0.1, abs=1e-6)  # of the ranking that fails
