"""SPEC 10.3: candidates are distinct, exclude all that the user has, and depend on the seed alone."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.core.errors import DataError
from llmsrec.data.catalog import COLUMNS, Catalog
from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Candidates, Targets
from llmsrec.preprocessing.candidates import (
    draw_candidates,
    normalize_title,
    sample_targets,
    title_labels,
)

NUM_ITEMS = 12
HISTORIES = st.lists(
    st.lists(st.integers(1, NUM_ITEMS), min_size=2, max_size=4, unique=True),
    min_size=1,
    max_size=6,
)


def draw(
    histories: list[list[int]], num_negatives: int, seed: int, labels: list[int] | None = None
) -> Candidates:
    """For the last purchase of every user."""
    users = np.arange(len(histories))
    targets = Targets(users, np.array([len(items) - 1 for items in histories]))
    every = np.array(labels) if labels else np.arange(NUM_ITEMS + 1)
    generator = np.random.default_rng(seed)
    return draw_candidates(from_rows(histories), targets, users, num_negatives, every, generator)


def catalog(titles: list[str]) -> Catalog:
    rows = [(index, f"I{index}", title, "d", "", "") for index, title in enumerate(titles, start=1)]
    return Catalog(pd.DataFrame(rows, columns=COLUMNS))


@settings(deadline=None)
@given(histories=HISTORIES, num_negatives=st.integers(0, 8), seed=st.integers(0, 1000))
def test_negatives_are_distinct_and_none_was_ever_bought(
    histories: list[list[int]], num_negatives: int, seed: int
) -> None:
    drawn = draw(histories, num_negatives, seed)
    assert drawn.items.shape == (len(histories), num_negatives + 1)
    assert drawn.targets.tolist() == [items[-1] for items in histories]
    for row, bought in zip(drawn.items.tolist(), histories, strict=True):
        assert len(set(row)) == num_negatives + 1
        assert set(row) & set(bought) == {bought[-1]}
        assert set(row) <= set(range(1, NUM_ITEMS + 1))


@settings(deadline=None)
@given(
    histories=HISTORIES,
    labels=st.lists(st.integers(0, 9), min_size=NUM_ITEMS, max_size=NUM_ITEMS),
    num_negatives=st.integers(0, 6),
)
def test_labels_of_a_row_differ_or_the_lack_is_reported(
    histories: list[list[int]], labels: list[int], num_negatives: int
) -> None:
    """Labels are shared, as titles are; a user's own items may share theirs with negatives, the target not."""
    labels = [99, *labels]
    left = [
        len({labels[item] for item in range(1, NUM_ITEMS + 1) if item not in bought} - {labels[bought[-1]]})
        for bought in histories
    ]  # fmt: skip
    if min(left) < num_negatives:
        with pytest.raises(DataError, match=r"lower splits\.negatives"):
            draw(histories, num_negatives, 0, labels)
        return
    drawn = draw(histories, num_negatives, 0, labels)
    for row, bought in zip(drawn.items.tolist(), histories, strict=True):
        assert len({labels[item] for item in row}) == num_negatives + 1
        assert set(row) & set(bought) == {bought[-1]}


def test_the_seed_alone_decides() -> None:
    histories = [[1, 2, 3], [4, 5], [6, 1, 2, 3]] * 20
    one, same, other = (draw(histories, 6, seed) for seed in (0, 0, 1))
    assert np.array_equal(one.items, same.items)
    assert np.array_equal(one.target_columns, same.target_columns)
    assert (one.items != other.items).any(axis=1).mean() > 0.9


def test_every_item_left_is_drawn_alike_and_the_target_stands_anywhere() -> None:
    """9,000 users with items 1 and 2: three negatives of ten, so each about 2,700 times (std. error 43)."""
    drawn = draw([[1, 2]] * 9000, 3, 0)
    counts = np.bincount(drawn.items.ravel(), minlength=NUM_ITEMS + 1)
    assert counts[:3].tolist() == [0, 0, 9000]
    assert counts[3:] == pytest.approx(2700, abs=5 * 43)
    assert np.bincount(drawn.target_columns) == pytest.approx(2250, abs=5 * 41)


def test_a_store_that_leaves_just_enough_items_will_do() -> None:
    """Of 101 items each user bought two: all other 99 must come, though chance would hardly find the last."""
    histories = [[user, user + 1] for user in range(1, 31)]
    drawn = draw(histories, 99, 0, list(range(102)))
    for row, bought in zip(drawn.items.tolist(), histories, strict=True):
        assert sorted(row) == [item for item in range(1, 102) if item != bought[0]]


def test_a_store_that_is_too_small_is_an_error_with_numbers() -> None:
    with pytest.raises(DataError, match="bought all but 9 of 12 items; 10 negatives are needed"):
        draw([[1, 2], [1, 2, 3]], 10, 0)
    titles = [0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]  # all left items share one title
    with pytest.raises(DataError, match="leaves 1 items with different titles, but 2 negatives"):
        draw([[1, 2]], 2, 0, titles)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Desk Lamp", "desk lamp"),
        ("Desk Lamp", " DeskLamp\t"),
        ("12\u201d Pan \u2018steel\u2019", "12 pan 'STEEL'"),
        ('"Quoted"', "`quoted`"),
    ],
)
def test_titles_that_a_reader_would_call_the_same_are_equal(one: str, two: str) -> None:
    assert normalize_title(one) == normalize_title(two)
    labels = title_labels(catalog([one, "Another", two]))
    assert labels[1] == labels[3] != labels[2]


def test_titles_that_differ_in_more_are_different() -> None:
    labels = title_labels(catalog(["Lamp 1", "Lamp 2", "Lamp, 1", "Lámp 1", "ランプ"]))
    assert len(set(labels.tolist())) == 6  # the padding's too


@settings(deadline=None)
@given(num=st.integers(0, 40), cap=st.none() | st.integers(1, 50), seed=st.integers(0, 9))
def test_evaluated_rows_are_all_or_one_sorted_sample(num: int, cap: int | None, seed: int) -> None:
    rows, again = (sample_targets(num, cap, np.random.default_rng(seed)).tolist() for _ in range(2))
    assert rows == again == sorted(set(rows))
    assert len(rows) == (num if cap is None else min(num, cap))
    assert set(rows) <= set(range(num))


def test_a_capped_sample_favours_nobody() -> None:
    """2,000 draws of 5 of 20: each about 500 times (std. error 19)."""
    generator = np.random.default_rng(0)
    drawn = np.concatenate([sample_targets(20, 5, generator) for _ in range(2000)])
    assert np.bincount(drawn, minlength=20) == pytest.approx(500, abs=5 * 19.4)
