"""Item texts as a ranker, against cosines worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from llmsrec.data.catalog import COLUMNS, Catalog
from llmsrec.data.sequences import Sequences, from_rows
from llmsrec.recommender.content import ContentRanker


def catalog_of(titles: list[str]) -> Catalog:
    rows = pd.DataFrame("", index=range(len(titles)), columns=COLUMNS)
    rows["item_index"] = np.arange(1, len(titles) + 1)
    rows["item_id"], rows["title"] = [f"I{index}" for index in rows.item_index], titles
    return Catalog(rows)


def histories_of(*rows: list[int]) -> Sequences:
    return from_rows([list(row) for row in rows], [[0] * len(row) for row in rows])


def idf(items: int, documents: int) -> float:
    """Smoothed inverse document frequency; one more document keeps the vocabulary non-empty."""
    return math.log((2 + items) / (1 + documents)) + 1


def test_scores_are_cosines_of_tf_idf() -> None:
    ranker = ContentRanker.fit(catalog_of(["red car", "red boat", "doll", "kite"]), last=5)
    scores = ranker.score(histories_of([1], [1, 3], []))
    red, car = idf(4, 2), idf(4, 1)
    cosine = red**2 / (red**2 + car**2)
    np.testing.assert_allclose(scores[0], [0, 1, cosine, 0, 0], rtol=1e-6)
    half = math.sqrt(0.5)
    np.testing.assert_allclose(scores[1], [0, half, cosine * half, half, 0], rtol=1e-6)
    assert not scores[2].any()


def test_only_the_last_purchases_count() -> None:
    ranker = ContentRanker.fit(catalog_of(["red", "boat", "doll"]), last=2)
    np.testing.assert_array_equal(
        ranker.score(histories_of([1, 2, 3])), ranker.score(histories_of([2, 3]))
    )


@pytest.mark.parametrize("titles", [["Empty title"] * 3, ["", "", ""], ["!", "?", ""]])
def test_a_catalog_without_words_scores_zero(titles: list[str]) -> None:
    ranker = ContentRanker.fit(catalog_of(titles), last=5)
    assert not ranker.score(histories_of([1, 2])).any()


def test_a_word_of_most_items_does_not_count() -> None:
    ranker = ContentRanker.fit(catalog_of(["toy red", "toy boat", "toy doll", "kite"]), last=5)
    assert not ranker.score(histories_of([1]))[0, 2:].any()


def test_another_catalog_is_read_with_the_same_vocabulary() -> None:
    ranker = ContentRanker.fit(catalog_of(["red car", "red boat", "doll", "kite"]), last=5)
    other = ranker.for_catalog(catalog_of(["a kite", "unheard of", "red car"]))
    scores = other.score(histories_of([3]))[0]
    assert scores[3] == pytest.approx(1)
    assert not scores[[0, 1, 2]].any()
