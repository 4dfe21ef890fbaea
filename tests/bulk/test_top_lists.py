"""The best items of users whose scores arrive in blocks, against a sort of all scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsrec.bulk import top_lists
from llmsrec.bulk.top_lists import TopLists


def added(scores: np.ndarray, k: int, size: int) -> TopLists:
    """All columns of `scores` (users, indices) but that of the padding, in blocks of `size` items."""
    lists = TopLists(len(scores), k)
    for start in range(1, scores.shape[1], size):
        lists.add(np.ascontiguousarray(scores[:, start : start + size].T), start)
    return lists


def test_the_best_come_first_and_equal_scores_in_the_order_of_items() -> None:
    scores = np.array([[9, 1, 3, 2, 3, 0, 3], [9, 5, 4, 3, 2, 1, 0]], dtype=np.float32)
    items, values = added(scores, k=3, size=2).lists()
    assert items.tolist() == [[2, 4, 6], [1, 2, 3]]
    assert values.tolist() == [[3, 3, 3], [5, 4, 3]]


def test_an_item_of_score_minus_infinity_is_left_out_and_the_list_is_filled_with_zeros() -> None:
    scores = np.array([[0, -np.inf, -5, -np.inf, -4]], dtype=np.float32)
    items, values = added(scores, k=3, size=4).lists()
    assert items.tolist() == [[4, 2, 0]]
    assert values.tolist() == [[-4, -5, 0]]


@pytest.mark.parametrize("crowded", [0, 8])
@given(data=st.data(), k=st.integers(1, 9), size=st.integers(1, 40), top=st.integers(0, 30))
def test_blocks_of_any_size_give_the_lists_of_a_stable_sort(
    crowded: int, data: st.DataObject, k: int, size: int, top: int
) -> None:
    """Scores in 0..top have many ties; with `crowded` 0 every block is cut to its own best first."""
    draws = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    scores = draws.integers(0, top + 1, (4, 31)).astype(np.float32)
    scores[draws.random(scores.shape) < 0.2] = -np.inf
    scores[:, 0] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    expected[np.isneginf(np.take_along_axis(scores, expected, axis=1))] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top_lists, "CROWDED", crowded)
        items, values = added(scores, k, size).lists()
    assert (items == expected).all()
    best = np.take_along_axis(scores, items, axis=1)
    assert (values == np.where(items > 0, best, 0)).all()
