"""What a reader is told, and in which order, on numbers that are made up."""

from typing import Any

import pytest

from llmsrec.report.verdict import verdict

VALUES = {"popularity": 0.1, "markov": 0.3, "teacher": 0.4, "student": 0.4}


def gap(a: str, b: str, value: float, protocol: str, spread: float = 0.01) -> dict[str, Any]:
    base = VALUES.get(b, 1.0)
    return {"a": a, "b": b, "protocol": protocol, "value": value, "low": value - spread,
            "high": value + spread, "relative": value / base}  # fmt: skip


def metrics_of(full: float, sampled: float, cost: dict[str, float] | None = None) -> dict[str, Any]:
    """The student has these values, the others VALUES in both rankings; `cost` is lost under shuffling."""
    own = {"sampled": sampled, "full": full}
    differences = [
        gap("student", name, own[protocol] - value, protocol)
        for name, value in VALUES.items() if name != "student"
        for protocol in own
    ]  # fmt: skip
    differences += [
        gap(f"{name}_shuffled", name, -lost, protocol) for name, lost in (cost or {}).items() for protocol in own
    ]  # fmt: skip
    systems = {
        name: {
            protocol: {"ndcg@10": {"value": own[protocol] if name == "student" else value}}
            for protocol in own
        }
        for name, value in VALUES.items()
    }
    return {"candidates": 100, "systems": systems, "differences": differences}


def test_a_loss_in_one_ranking_comes_first_and_names_the_winners() -> None:
    """The case of the sample dataset: level among candidates, behind a Markov chain among all items."""
    found = verdict(metrics_of(0.2, 0.4), [])
    assert [statement["news"] for statement in found] == ["bad", "open"]
    assert found[0]["text"] == (
        "Among all items, 2 systems are significantly better than the student (NDCG@10 0.2000): "
        "Teacher (SASRec) 0.4000 (student -50%), Markov chain 0.3000 (student -33%)."
    )
    assert found[1]["text"] == (
        "Among 100 candidates, no system is significantly better than the student (NDCG@10 0.4000); "
        "not significantly different: Teacher (SASRec) 0.4000 (student +0%)."
    )


def test_a_win_names_the_strongest_rival() -> None:
    (sampled, full) = verdict(metrics_of(0.6, 0.5), [])
    assert (sampled["news"], full["news"]) == ("good", "good")
    assert sampled["text"] == (
        "Among 100 candidates, the student (NDCG@10 0.5000) is significantly better than every other system; "
        "the best is Teacher (SASRec) 0.4000 (student +25%)."
    )


def test_long_lists_of_better_systems_are_cut() -> None:
    (first, second) = verdict(metrics_of(0.05, 0.35), [])
    assert "1 system is significantly better" in first["text"]
    assert "3 systems are" in second["text"]
    metrics = metrics_of(0.05, 0.05)
    metrics["systems"]["content"] = metrics["systems"]["popularity"]
    metrics["differences"] += [gap("student", "content", -0.05, p) for p in ("sampled", "full")]
    assert verdict(metrics, [])[0]["text"].endswith("Markov chain 0.3000 (student -83%), "
                                                     "Popularity 0.1000 (student -50%) and 1 more.")  # fmt: skip


@pytest.mark.parametrize(
    ("cost", "news", "words"),
    [
        (
            {"student": 0.1, "teacher": 0.2},
            "good",
            "the student 25% among 100 candidates and 25% among all items of its NDCG@10; its teacher 50% and 50%.",
        ),
        ({"student": 0.0, "teacher": 0.2}, "bad", "the student 0% (not significant) among 100"),
        ({"student": 0.0, "teacher": 0.0}, "open", "its teacher 0% (not significant) and 0% (not"),
        ({"student": 0.1}, "good", "25% among all items of its NDCG@10."),
    ],
)
def test_the_cost_of_shuffling_is_stated(cost: dict[str, float], news: str, words: str) -> None:
    metrics = metrics_of(0.6, 0.6, cost)
    (found,) = (each for each in verdict(metrics, []) if each["text"].startswith("Shuffling"))
    assert found["news"] == news
    assert words in found["text"]


def test_failed_gates_are_named() -> None:
    def gate(name: str, severity: str, *, success: bool) -> dict[str, Any]:
        return {"name": name, "severity": severity, "success": success}

    passed, warning = (
        gate("order", "error", success=True),
        gate("baseline", "warn", success=False),
    )
    failed = gate("popularity", "error", success=False)
    nothing = {"candidates": 100, "systems": {}, "differences": []}
    found = [verdict(nothing, gates) for gates in ([passed], [passed, warning], [warning, failed])]
    assert [(row["news"], row["text"]) for (row,) in found] == [
        ("good", "Quality gates passed: order."),
        ("open", "Quality gates failed, as warnings: baseline; passed: order."),
        ("bad", "Quality gates failed: popularity; failed, as warnings: baseline."),
    ]
    assert verdict(nothing, []) == []


@pytest.mark.parametrize("cost", [None, {"tokens": 213.4, "gflop": 0.28}])
def test_what_the_language_model_adds_and_costs(cost: dict[str, float] | None) -> None:
    metrics = metrics_of(0.6, 0.6)
    pair = ("recommender", "recommender_without_student")
    for name in pair:
        metrics["systems"][name] = metrics["systems"]["teacher"]
    metrics["differences"] += [gap(*pair, 0.05, protocol) for protocol in ("sampled", "full")]
    if cost:
        metrics["language_model"] = cost
    (found,) = (each for each in verdict(metrics, []) if "language model" in each["text"])
    assert found["news"] == "good"
    said = "For that it reads 213 tokens a shopper (0.28 GFLOP)."
    assert found["text"].endswith(said) is bool(cost)
