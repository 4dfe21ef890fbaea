"""Hand-worked values, and the properties that hold for any rank."""

from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsrec.ranking.metrics import Ranks, hit_rate, mrr, ndcg


def ranks(better: list[int], ties: list[int], candidates: int = 100) -> Ranks:
    return Ranks(np.array(better), np.array(ties), np.full(len(better), candidates))


def test_metrics_of_ranks_one_three_and_eleven() -> None:
    found = ranks([0, 2, 10], [0, 0, 0])
    assert hit_rate(found, 10).tolist() == [1, 1, 0]
    assert ndcg(found, 10).tolist() == pytest.approx([1, 1 / log2(4), 0])
    assert mrr(found).tolist() == pytest.approx([1, 1 / 3, 1 / 11])


def test_a_tie_is_the_mean_of_its_places() -> None:
    found = ranks([8], [3])  # places 9, 10, 11 and 12, all as likely
    assert hit_rate(found, 10).tolist() == [2 / 4]
    assert ndcg(found, 10).tolist() == pytest.approx([(1 / log2(10) + 1 / log2(11)) / 4])


def test_a_constant_scorer_gets_chance() -> None:
    assert hit_rate(ranks([0], [99]), 10).tolist() == pytest.approx([0.10])


@given(st.integers(0, 99), st.integers(0, 20), st.integers(1, 50))
def test_bounded_and_worse_with_rank(better: int, ties: int, k: int) -> None:
    near, far = (
        ndcg(ranks([better], [ties], 200), k)[0],
        ndcg(ranks([better + 1], [ties], 200), k)[0],
    )
    assert 0 <= far <= near <= 1
    assert near <= hit_rate(ranks([better], [ties], 200), k)[0] + 1e-12


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.integers(1, 12))
def test_equals_the_mean_over_all_orders_of_the_ties(scores: list[int], k: int) -> None:
    """Slow and independent: put the target at each place that its tie allows."""
    target = scores[0]
    above = sum(score > target for score in scores[1:])
    same = sum(score == target for score in scores[1:])
    places = range(above + 1, above + same + 2)
    slow = np.mean([1 / log2(place + 1) if place <= k else 0 for place in places])
    assert ndcg(ranks([above], [same], len(scores)), k)[0] == pytest.approx(slow)
