"""Coverage, novelty and Gini coefficient by hand, and against slow definitions."""

from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsrec.data.splits import Splits
from llmsrec.evaluation.lists import gini, list_metrics
from llmsrec.evaluation.per_user import EvaluationConfig, evaluate_all, summarise_lists
from llmsrec.evaluation.systems import SYSTEMS, Inputs


def test_five_lists_by_hand() -> None:
    """Items 1 to 4 of 8 users; 4 was bought by nobody, and the last two lists are short."""
    lists = np.array([[1, 2], [1, 2], [1, 3], [3, 0], [0, 0]])
    counts = np.array([0, 8, 4, 2, 0])
    found = list_metrics(lists, counts, num_users=8)
    # shown 3, 2, 2 and 0 times: (-3 * 0 - 1 * 2 + 1 * 2 + 3 * 3) / (3 * 7)
    assert found == {
        "coverage@2": 3 / 4,
        "novelty@2": pytest.approx((0.5 + 0.5 + 1 + 2 + 0) / 5),
        "gini@2": pytest.approx(9 / 21),
    }


def test_an_unbought_item_is_as_novel_as_one_bought_once() -> None:
    found = list_metrics(np.array([[1], [2]]), np.array([0, 0, 1]), num_users=5)
    assert found["novelty@1"] == pytest.approx(log2(5))


@given(st.lists(st.integers(0, 9), min_size=2, max_size=30).filter(any))
def test_gini_is_half_the_relative_mean_difference_of_two_items(shown: list[int]) -> None:
    pairs = [abs(a - b) for i, a in enumerate(shown) for j, b in enumerate(shown) if i != j]
    mean = sum(shown) / len(shown)
    assert gini(np.array(shown)) == pytest.approx(sum(pairs) / len(pairs) / (2 * mean))


@pytest.mark.parametrize(("shown", "value"), [([3, 3, 3], 0), ([0, 0, 5], 1), ([0, 0], 0)])
def test_gini_of_equal_and_of_single_items(shown: list[int], value: float) -> None:
    assert gini(np.array(shown)) == pytest.approx(value)


def test_every_system_of_the_table_has_its_lists_described(markov_splits: Splits) -> None:
    """Popularity shows nearly the same ten items to everybody, the Markov chain others."""
    inputs = Inputs(markov_splits, {}, 0)
    rankers = {name: SYSTEMS[name].build(inputs) for name in ("popularity", "markov")}
    config = EvaluationConfig(bootstrap=5, shuffles=0, shuffle_window=None, seed=0)
    found = summarise_lists(evaluate_all(rankers, markov_splits, config).lists, markov_splits)
    assert list(found) == ["popularity", "markov"]
    assert found["popularity"]["gini@10"] > found["markov"]["gini@10"]
    assert found["popularity"]["novelty@10"] < found["markov"]["novelty@10"]
