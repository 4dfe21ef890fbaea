"""item-kNN against values worked out by hand and a slow second way."""

from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from llmsrec.data.sequences import Sequences, from_rows
from llmsrec.data.splits import Splits
from llmsrec.ranking.metrics import hit_rate
from llmsrec.ranking.protocol import evaluate
from llmsrec.ranking.ranker import Ranker
from llmsrec.systems.item_knn import ItemKNN, bought, nearest, similarities
from llmsrec.systems.system import TrainingInput
from tests.systems.small import small_inputs

ROWS = [
    [1, 2, 3],
    [1, 2, 2],
    [2, 3],
    [4],
]  # items 1: 2 buyers, 2: 3 (one of them twice), 3: 2, 4: 1


@pytest.fixture
def inputs(markov_splits: Splits) -> TrainingInput:
    return small_inputs(markov_splits, Path("none"))


def ranker(inputs: TrainingInput, train: Sequences, system: ItemKNN) -> Ranker:
    splits = replace(
        inputs.splits, sequences=train, train_lengths=train.lengths, user_ids=["u"] * len(train)
    )
    model = system.model(system.network(inputs), replace(inputs, splits=splits))
    assert isinstance(model, Ranker)
    return model


def test_similarity_is_the_shrunk_cosine_of_buyers() -> None:
    """A second purchase by the same shopper adds nothing, and an item is not like itself."""
    found = similarities(bought(from_rows(ROWS), 5), shrink=1.0).toarray()
    expected = np.zeros((5, 5))
    expected[1, 2] = 2 / (sqrt(2 * 3) + 1)
    expected[1, 3] = 1 / (sqrt(2 * 2) + 1)
    expected[2, 3] = 2 / (sqrt(3 * 2) + 1)
    np.testing.assert_allclose(found, expected + expected.T, rtol=1e-6)


def test_an_item_keeps_its_nearest_and_of_equals_the_first() -> None:
    similar = similarities(bought(from_rows(ROWS), 5), shrink=0.0)
    found = nearest(similar, 1).toarray()
    assert [np.flatnonzero(row).tolist() for row in found] == [[], [2], [1], [2], []]


def test_the_score_is_the_sum_over_the_last_purchases(inputs: TrainingInput) -> None:
    similar = similarities(bought(from_rows(ROWS), inputs.splits.num_items + 1), 0.5).toarray()
    shown = from_rows([[3, 1, 2], [4], []])
    for last, counted in ((None, [3, 1, 2]), (2, [1, 2]), (1, [2])):
        found = ranker(inputs, from_rows(ROWS), ItemKNN(40, 0.5, last)).score(shown)
        np.testing.assert_allclose(found[0], similar[:, counted].sum(axis=1), rtol=1e-6)
        assert (found[1:] == 0).all()
        assert (found[:, 0] == 0).all()


def test_neighbours_are_those_of_the_item_that_is_scored(inputs: TrainingInput) -> None:
    """3 keeps 2 alone, so a shopper of 1 gives it nothing, though 1 and 3 share a buyer."""
    found = ranker(inputs, from_rows(ROWS), ItemKNN(1, 0.0, None)).score(from_rows([[1]]))
    assert found[0, 3] == 0
    assert found[0, 2] > 0


def test_neighbours_predict_the_next_purchase(inputs: TrainingInput) -> None:
    """Of ten candidates: chance is 0.3."""
    system = ItemKNN(20, 1.0, 3)
    model = system.model(system.network(inputs), inputs)
    assert isinstance(model, Ranker)
    ranks = evaluate(model, inputs.splits, "test", full=False).sampled
    assert hit_rate(ranks, 3).mean() > 0.6
