"""Lists of many users at once, against the scores of HybridRanker and the lists of the evaluation."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from llmsrec.bulk import ranker as bulk
from llmsrec.bulk.ranker import BulkRanker, UserVectors
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.llm.ranker import RetrievalRanker
from llmsrec.ranking.protocol import top_items
from llmsrec.recommender.fitted import Parts
from llmsrec.recommender.hybrid import HybridRanker, Weights
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.serving.recommender import Recommender
from llmsrec.serving.transfer import with_item_vectors

ALL = {"teacher": 0.5, "student": 1.0, "content": 2.0}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "USERS", 32)
    monkeypatch.setattr(bulk, "ITEMS", 7)


def lists(parts: Parts, weights: Weights, histories: Sequences, k: int) -> Any:
    ranker = BulkRanker(parts, weights)
    return ranker.top(ranker.represent(histories), histories, k)


def sorted_items(scores: np.ndarray, histories: Sequences, k: int) -> np.ndarray:
    """A sort of all scores without the padding and the histories; scores closer than rounding count as equal."""
    scores = np.round(scores.astype(np.float64), 4)
    scores[:, 0] = -np.inf
    scores[histories.row_indices, histories.items] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("column_cost", [0.0, 0.02, np.inf])
@pytest.mark.parametrize(
    "weights",
    [
        ALL,
        {"teacher": 1.0, "student": 0.0, "content": 3.0},
        {"student": 1.0},
        {"teacher": 2.0},
        {"content": 1.0},
    ],
    ids=lambda weights: "+".join(weights),
)
def test_lists_are_those_of_sorting_the_weighted_scores(
    recommender: Recommender,
    splits: Splits,
    weights: Weights,
    column_cost: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With all words in dense columns, some of them, or none."""
    monkeypatch.setattr(bulk, "COLUMN_COST", column_cost)
    parts, histories = recommender.parts, splits.sequences
    scores = HybridRanker(parts.by_name(), weights).score(histories)
    items, values = lists(parts, weights, histories, k=6)
    expected = sorted_items(scores, histories, k=6)
    ours = np.take_along_axis(scores, items, axis=1)
    theirs = np.take_along_axis(scores, expected, axis=1)
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
    np.testing.assert_allclose(values, ours, atol=1e-5)
    assert (
        items == expected
    ).mean() > 0.99  # the others are closer than the rounding of sorted_items


def test_some_words_are_dense_columns_and_some_are_not(recommender: Recommender) -> None:
    ranker = BulkRanker(recommender.parts, ALL)
    assert 0 < ranker.common.sum() < len(ranker.common)


def test_lists_are_those_of_the_evaluation_bit_for_bit_where_scores_are_whole_numbers(
    recommender: Recommender, splits: Splits
) -> None:
    """Whole numbers are summed without rounding, and have many ties."""
    draws = np.random.default_rng(0)
    indices, users = splits.num_items + 1, splits.num_users
    teacher, student = recommender.parts.teacher.model, recommender.parts.student.model
    rows = torch.from_numpy(draws.integers(-1, 2, (indices, 16)).astype(np.float32))
    rows[0] = 0
    parts = Parts(
        SequentialRanker(with_item_vectors(teacher, rows)),
        RetrievalRanker(student, draws.integers(-1, 2, (indices, 16)).astype(np.float32)),
        recommender.parts.content,
    )
    ranker = BulkRanker(parts, {"teacher": 1.0, "student": 2.0})
    ranker.words = sparse.csr_matrix(draws.integers(0, 2, (indices, 5)).astype(np.float32))
    dense = draws.integers(-1, 2, (users, 32)).astype(np.float32)
    words = sparse.csr_matrix(draws.integers(0, 2, (users, 5)).astype(np.float32))
    scores = dense @ ranker.dense.T + (words @ ranker.words.T).toarray()
    nobody = np.zeros(users, dtype=np.int64)
    expected = top_items(scores, nobody, splits.sequences, 10)
    items, values = ranker.top(UserVectors(dense, words), splits.sequences, 10)
    assert (items == expected).all()
    assert (values == np.take_along_axis(scores, items, axis=1)).all()


def test_without_any_weight_all_scores_are_zero(recommender: Recommender, splits: Splits) -> None:
    histories = splits.sequences.take(np.arange(3))
    items, values = lists(recommender.parts, {"teacher": 0.0, "content": 0.0}, histories, k=4)
    assert (values == 0).all()
    for row, found in enumerate(items):
        left = np.setdiff1d(np.arange(1, splits.num_items + 1), histories[row])
        assert found.tolist() == left[:4].tolist()


def test_the_number_of_threads_changes_no_bit(recommender: Recommender, splits: Splits) -> None:
    ranker, threads = BulkRanker(recommender.parts, ALL), torch.get_num_threads()
    users = ranker.represent(splits.sequences)
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(ranker.top(users, splits.sequences, 5))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert all((one == three).all() for one, three in zip(*found, strict=True))


def test_a_part_of_weight_zero_is_not_computed(
    recommender: Recommender, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(histories: Sequences) -> torch.Tensor:
        raise AssertionError("the student encodes users")

    monkeypatch.setattr(recommender.parts.student, "represent_users", fail)
    items, _ = lists(recommender.parts, {**ALL, "student": 0.0}, splits.sequences, k=1)
    assert (items > 0).all()


def test_a_vector_that_is_not_finite_is_refused(recommender: Recommender, splits: Splits) -> None:
    vectors = recommender.parts.student.item_vectors.numpy().copy()
    vectors[3, 1] = np.nan
    student = RetrievalRanker(recommender.parts.student.model, vectors)
    parts = Parts(recommender.parts.teacher, student, recommender.parts.content)
    with pytest.raises(FloatingPointError, match="item vector of row 3 is not finite"):
        BulkRanker(parts, ALL)
