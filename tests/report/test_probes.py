"""Quality by group, against a mean taken by hand."""

import numpy as np
import pytest

from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import MarkovChain, Popularity
from llmsrec.evaluation.per_user import METRICS, EvaluationConfig, UserMetrics, evaluate_all
from llmsrec.report.groups import all_groups
from llmsrec.report.probes import metrics_by_group, sequence_diagnostics

CONFIG = EvaluationConfig(bootstrap=100, shuffles=1, shuffle_window=None, seed=0)


def test_each_row_is_the_mean_of_its_users(markov_splits: Splits) -> None:
    rankers = {"popularity": Popularity(markov_splits), "markov": MarkovChain(markov_splits)}
    found = evaluate_all(rankers, markov_splits, CONFIG)
    groups = all_groups(markov_splits, "test")
    rows = metrics_by_group(found.table, markov_splits, CONFIG)
    assert {row["family"] for row in rows} == set(groups)
    for row in rows:
        chosen = groups[row["family"]][row["group"]]
        values = found.table[row["system"]][row["protocol"]][chosen, METRICS.index("ndcg@10")]
        assert row["users"] == chosen.sum()
        assert row["value"] == pytest.approx(values.mean())
        assert row["low"] - 1e-6 <= row["value"] <= row["high"] + 1e-6


def test_similarity_is_a_mean_with_its_interval(markov_splits: Splits) -> None:
    values = np.linspace(0.2, 0.8, len(markov_splits.candidates["test"]))
    table = evaluate_all({"popularity": Popularity(markov_splits)}, markov_splits, CONFIG).table
    (row,) = sequence_diagnostics(
        UserMetrics(table, {"student": values}, {}, {}), markov_splits, CONFIG
    )["similarity"].values()
    assert row["value"] == pytest.approx(0.5)
    assert 0.45 < row["low"] < 0.5 < row["high"] < 0.55  # 300 users
