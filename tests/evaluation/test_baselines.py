"""Popularity and the Markov chain on a dataset small enough to count by hand."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import MarkovChain, Popularity
from llmsrec.preprocessing.splitting import split
from llmsrec.ranking.metrics import ndcg
from llmsrec.ranking.protocol import evaluate
from tests.conftest import interactions_of, splits_config

# item A is 1, B is 2 and so on; the last two purchases of a user are valid and test, the first three train
HISTORIES = {
    "u": ["A", "B", "C", "D", "E"],
    "v": ["A", "B", "D", "E", "C"],
    "w": ["B", "A", "F", "C", "D"],
}


@pytest.fixture(scope="module")
def splits() -> Splits:
    return split(interactions_of(HISTORIES), splits_config(negatives=1, generation_negatives=0))


def test_popularity_counts_training_purchases_only(splits: Splits) -> None:
    """Train: A B C, A B D, B A F."""
    scores = Popularity(splits).score(from_rows([[1], [], [6, 2]]))
    assert scores.tolist() == [[0, 3, 3, 1, 1, 0, 1]] * 3


def test_the_markov_chain_counts_what_followed_and_falls_back_on_popularity(splits: Splits) -> None:
    """A -> B twice and F once, B -> C, D and A once each; nothing follows the end of a user's training."""
    chain = MarkovChain(splits)
    popularity = np.array([0, 3, 3, 1, 1, 0, 1]) / 4
    follows = {
        1: [0, 0, 2, 0, 0, 0, 1],
        2: [0, 1, 0, 1, 1, 0, 0],
        3: [0, 0, 0, 0, 0, 0, 0],  # C ended u's training; A, which begins v's, does not follow it
        6: [0, 0, 0, 0, 0, 0, 0],
    }
    for item, counts in follows.items():
        (found,) = chain.score(from_rows([[4, item]]))
        np.testing.assert_allclose(found, np.array(counts) + popularity)


def test_only_the_last_purchase_counts_and_none_leaves_popularity(splits: Splits) -> None:
    chain = MarkovChain(splits)
    same, also, empty = chain.score(from_rows([[2, 1], [5, 3, 1], []]))
    np.testing.assert_array_equal(same, also)
    np.testing.assert_allclose(empty, np.array([0, 3, 3, 1, 1, 0, 1]) / 4)


rows = st.lists(st.lists(st.integers(1, 6), max_size=8), min_size=1, max_size=6)


@given(rows)
@settings(deadline=None)
def test_the_chain_equals_counting_pairs_one_by_one(
    splits: Splits, histories: list[list[int]]
) -> None:
    """Also where users have bought nothing, at the start, in the middle or at the end."""
    pairs = Counter(pair for row in histories for pair in pairwise(row))
    chain = MarkovChain(splits, from_rows(histories))
    for last in range(1, 7):
        (found,) = chain.score(from_rows([[last]]))
        assert np.floor(found).tolist() == [pairs[last, item] for item in range(7)]


def test_one_transition_outweighs_any_popularity(markov_splits: Splits) -> None:
    chain = MarkovChain(markov_splits)
    assert 0 <= chain.backoff.min() <= chain.backoff.max() < 1


def test_where_order_decides_the_chain_is_far_better(markov_splits: Splits) -> None:
    quality = {
        ranker: ndcg(evaluate(ranker(markov_splits), markov_splits, "test").sampled, 10).mean()
        for ranker in (Popularity, MarkovChain)
    }
    assert quality[MarkovChain] > 0.9
    assert quality[Popularity] < 0.6
