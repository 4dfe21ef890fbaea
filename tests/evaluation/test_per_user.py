"""From ranks to metrics.json on toy tables and shuffled histories."""

from collections import Counter
from dataclasses import replace
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import MarkovChain, Popularity
from llmsrec.evaluation.per_user import (
    METRICS,
    EvaluationConfig,
    cosine,
    evaluate_all,
    per_user,
    shuffled_histories,
    summarise,
)
from llmsrec.preprocessing.splitting import split
from llmsrec.ranking.metrics import Ranks
from llmsrec.ranking.protocol import evaluate
from tests.conftest import interactions_of, splits_config

CONFIG = EvaluationConfig(bootstrap=200, shuffles=3, shuffle_window=None, seed=5)
NDCG = METRICS.index("ndcg@10")


def table_of(**systems: list[float]) -> dict[str, dict[str, np.ndarray]]:
    """Every metric of a user has this one value; among all items it has half of it."""
    return {
        name: {
            "sampled": np.tile(np.array(values)[:, None], len(METRICS)),
            "full": np.tile(np.array(values)[:, None] / 2, len(METRICS)),
        }
        for name, values in systems.items()
    }


def test_the_columns_are_the_metrics_in_order() -> None:
    """Third of 100, and twelfth of 100, which the cut at 20 alone still sees."""
    found = per_user(Ranks(np.array([2, 11]), np.array([0, 0]), np.array([100, 100])))
    names = dict(zip(METRICS, found.T.tolist(), strict=True))
    third, twelfth = 1 / log2(4), 1 / log2(13)
    assert names == {
        "hr@1": [0, 0], "hr@5": [1, 0], "hr@10": [1, 0], "hr@20": [1, 1],
        "ndcg@5": pytest.approx([third, 0]), "ndcg@10": pytest.approx([third, 0]),
        "ndcg@20": pytest.approx([third, twelfth]), "mrr": pytest.approx([1 / 3, 1 / 12]),
    }  # fmt: skip


def test_all_rows_of_a_user_are_drawn_together(markov_splits: Splits) -> None:
    """Each user has three equal rows, so the intervals are those of one row a user."""
    values = np.random.default_rng(0).random(20).tolist()
    single = summarise(table_of(teacher=values, student=values[::-1]), markov_splits, CONFIG, "")
    users = np.repeat(np.arange(20), 3)
    rows = table_of(
        teacher=np.repeat(values, 3).tolist(), student=np.repeat(values[::-1], 3).tolist()
    )
    tripled = summarise(rows, markov_splits, CONFIG, "", users)
    assert tripled["users"] == single["users"] == 20
    first, second = (each["systems"]["teacher"]["full"]["mrr"] for each in (single, tripled))
    assert second == pytest.approx(first, abs=1e-6)
    assert tripled["differences"][0]["high"] == pytest.approx(
        single["differences"][0]["high"], abs=1e-6
    )
    apart = summarise(rows, markov_splits, CONFIG, "")["systems"]["teacher"]["full"]["mrr"]
    assert apart["high"] - apart["low"] < 0.8 * (first["high"] - first["low"])


def test_means_and_differences_of_a_small_table(markov_splits: Splits) -> None:
    table = table_of(
        popularity=[0.1, 0.2, 0.0, 0.1], teacher=[0.5, 0.1, 0.3, 0.3], student=[0.7, 0.3, 0.5, 0.5]
    )
    found = summarise(table, markov_splits, CONFIG, "toy")
    assert {
        system: [rows[protocol]["mrr"]["value"] for protocol in ("sampled", "full")]
        for system, rows in found["systems"].items()
    } == {
        "popularity": pytest.approx([0.1, 0.05]),
        "teacher": pytest.approx([0.3, 0.15]),
        "student": pytest.approx([0.5, 0.25]),
    }
    assert list(found["systems"]["student"]["full"]) == list(METRICS)
    gaps = {(row["a"], row["b"], row["protocol"]): row for row in found["differences"]}
    assert set(gaps) == {
        (a, b, protocol)
        for a, b in (("student", "teacher"), ("student", "popularity"))
        for protocol in ("sampled", "full")
    }
    sure = gaps["student", "teacher", "sampled"]  # 0.2 for every user: no resample says otherwise
    for name in ("value", "low", "high"):
        assert sure[name] == pytest.approx(0.2, abs=1e-6)
    assert sure["relative"] == pytest.approx(2 / 3)
    assert sure["p"] == 2 / 201
    unsure = gaps["student", "popularity", "full"]
    assert unsure["value"] == pytest.approx(0.2)
    assert unsure["low"] < 0.15 < 0.25 < unsure["high"]


def test_the_frame_has_the_users_and_targets_that_were_ranked(markov_splits: Splits) -> None:
    found = summarise(table_of(teacher=[0.2, 0.4]), markov_splits, CONFIG, "toy")
    assert {key: found[key] for key in ("dataset", "users", "items", "candidates")} == {
        "dataset": "toy", "users": 2, "items": 40, "candidates": 10,
    }  # fmt: skip
    assert found["chance"] == {"hr@10": 1.0, "hr@10_full": 10 / 40}
    assert found["differences"] == []
    histories = {f"u{number}": ["A", "B", "C", "D"][: 3 + number % 2] for number in range(4)}
    few = split(interactions_of(histories), splits_config(negatives=0, generation_negatives=0))
    found = summarise(table_of(teacher=[0.2, 0.4]), few, CONFIG, "toy")
    assert found["chance"] == {"hr@10": 1.0, "hr@10_full": 1.0}


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40))
@settings(deadline=None, max_examples=20)
def test_equal_systems_do_not_differ_significantly(
    markov_splits: Splits, values: list[float]
) -> None:
    """By nothing at all: their difference is 0, and so are both ends of its interval."""
    table = table_of(markov=values, teacher=values, student=values)
    for gap in summarise(table, markov_splits, CONFIG, "toy")["differences"]:
        assert (gap["value"], gap["low"], gap["high"], gap["p"]) == (0, 0, 0, 1)


def test_a_difference_is_that_of_the_same_users(markov_splits: Splits) -> None:
    """Two systems that are right for other users: the pairing sees the whole spread."""
    table = table_of(teacher=[1.0, 0.0] * 20, student=[0.0, 1.0] * 20)
    (gap, _) = summarise(table, markov_splits, CONFIG, "toy")["differences"]
    assert gap["value"] == 0
    assert gap["high"] - gap["low"] == pytest.approx(4 * 1.96 * 0.5 / 40**0.5, rel=0.2)
    assert gap["p"] > 0.5


def test_a_relative_difference_to_zero_is_null(markov_splits: Splits) -> None:
    table = table_of(teacher=[0.0, 0.0], student=[0.5, 0.1])
    (gap, _) = summarise(table, markov_splits, CONFIG, "toy")["differences"]
    assert gap["relative"] == 0.0


def test_shuffled_rows_are_the_mean_over_the_permutations(markov_splits: Splits) -> None:
    chain = MarkovChain(markov_splits)
    found = evaluate_all(
        {"popularity": Popularity(markov_splits), "teacher": chain}, markov_splits, CONFIG
    )
    table = found.table
    assert list(table) == ["popularity", "teacher", "teacher_shuffled"]
    assert found.similarity == {}  # a Markov chain has no vectors
    runs = [
        evaluate(chain, markov_splits, "test", histories=histories)
        for histories in shuffled_histories(markov_splits, "test", CONFIG)
    ]
    slow = sum(per_user(run.sampled) for run in runs) / 3
    np.testing.assert_allclose(table["teacher_shuffled"]["sampled"], slow)
    assert table["teacher_shuffled"]["sampled"][:, NDCG].mean() < (
        0.8 * table["teacher"]["sampled"][:, NDCG].mean()
    )


def test_a_ranker_that_ignores_order_does_not_change(markov_splits: Splits) -> None:
    table = evaluate_all({"student": Popularity(markov_splits)}, markov_splits, CONFIG).table
    for protocol in ("sampled", "full"):
        np.testing.assert_allclose(
            table["student_shuffled"][protocol], table["student"][protocol], atol=1e-12
        )


def test_without_shuffles_there_are_no_shuffled_rows(markov_splits: Splits) -> None:
    config = EvaluationConfig(bootstrap=10, shuffles=0, shuffle_window=None, seed=0)
    assert list(
        evaluate_all({"teacher": Popularity(markov_splits)}, markov_splits, config).table
    ) == ["teacher"]


def rows_of(sequences: Sequences) -> list[list[int]]:
    return [sequences[row].tolist() for row in range(len(sequences))]


def test_a_shuffle_permutes_each_history_and_leaves_the_times(markov_splits: Splits) -> None:
    """The same multiset for each user, another order each time, the same orders for the same seed."""
    true = markov_splits.histories("test")
    runs = shuffled_histories(markov_splits, "test", CONFIG)
    assert len(runs) == 3
    for run in runs:
        assert [Counter(row) for row in rows_of(run)] == [Counter(row) for row in rows_of(true)]
        assert (run.timestamps == true.timestamps).all()
        assert (run.offsets == true.offsets).all()
    orders = [true.items.tolist(), *(run.items.tolist() for run in runs)]
    assert len({tuple(order) for order in orders}) == 4
    again = shuffled_histories(markov_splits, "test", CONFIG)
    assert [run.items.tolist() for run in again] == orders[1:]


def test_a_shuffle_puts_each_purchase_last_as_often(markov_splits: Splits) -> None:
    """300 users, 30 shuffles: the last purchase stays last in one of n, within five standard errors."""
    true = markov_splits.histories("test")
    runs = shuffled_histories(markov_splits, "test", EvaluationConfig(1, 30, None, 0))
    ends = true.offsets[1:] - 1
    kept = np.mean([run.items[ends] == true.items[ends] for run in runs])
    chance = 1 / true.lengths
    error = np.sqrt((chance * (1 - chance)).sum() / 30) / len(true)
    assert abs(kept - chance.mean()) < 5 * error


def test_within_a_window_the_same_purchases_stand_in_another_order(markov_splits: Splits) -> None:
    """SPEC E4's control: what a model with this window sees is the same set."""
    true = markov_splits.histories("test")
    config = replace(CONFIG, shuffle_window=3)
    for run in shuffled_histories(markov_splits, "test", config):
        kept = [run[row][:-3].tolist() == true[row][:-3].tolist() for row in range(len(true))]
        assert all(kept)
        window, own = run.padded(3), true.padded(3)
        assert (np.sort(window, axis=1) == np.sort(own, axis=1)).all()
        assert (window != own).any()


def test_cosine_equals_a_loop_over_rows() -> None:
    first = np.array([[1.0, 0], [1, 1], [2, 0], [0, 0]])
    second = np.array([[3.0, 0], [-1, -1], [1, 3**0.5], [1, 2]])
    assert cosine(first, second).tolist() == pytest.approx([1, -1, 0.5, 0])
