"""Candidates are distinct, exclude all that the user bought, and depend on the seed only (specification 10.3)."""

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
    most_negatives,
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
    item_labels = np.array(labels) if labels else np.arange(NUM_ITEMS + 1)
    generator = np.random.default_rng(seed)
    return draw_candidates(
        from_rows(histories), targets, users, num_negatives, item_labels, generator
    )


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
def test_labels_of_a_row_differ_or_it_is_an_error(
    histories: list[list[int]], labels: list[int], num_negatives: int
) -> None:
    """Items share labels as they share titles; negatives may share one with bought items but not with the target."""
    labels = [99, *labels]
    available = [
        len({labels[item] for item in range(1, NUM_ITEMS + 1) if item not in bought} - {labels[bought[-1]]})
        for bought in histories
    ]  # fmt: skip
    if min(available) < num_negatives:
        with pytest.raises(DataError, match=r"lower splits\.negatives"):
            draw(histories, num_negatives, 0, labels)
        return
    drawn = draw(histories, num_negatives, 0, labels)
    for row, bought in zip(drawn.items.tolist(), histories, strict=True):
        assert len({labels[item] for item in row}) == num_negatives + 1
        assert set(row) & set(bought) == {bought[-1]}


@settings(deadline=None)
@given(
    histories=HISTORIES,
    labels=st.lists(st.integers(0, 9), min_size=NUM_ITEMS, max_size=NUM_ITEMS),
    wanted=st.integers(0, 12),
)
def test_the_largest_number_of_negatives_suits_every_user(
    histories: list[list[int]], labels: list[int], wanted: int
) -> None:
    """One more at most, where the target's label is among those that its user has completely bought."""
    labels = [99, *labels]
    most = most_negatives(from_rows(histories), np.array(labels), wanted)
    free = [
        len({labels[item] for item in range(1, NUM_ITEMS + 1) if item not in bought})
        for bought in histories
    ]
    assert most == max(0, min(wanted, min(free) - 1))
    draw(histories, most, 0, labels)


def test_candidates_depend_on_the_seed() -> None:
    histories = [[1, 2, 3], [4, 5], [6, 1, 2, 3]] * 20
    first, same, other = (draw(histories, 6, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.items, same.items)
    assert np.array_equal(first.target_columns, same.target_columns)
    assert (first.items != other.items).any(axis=1).mean() > 0.9


def test_negatives_and_target_columns_are_uniform() -> None:
    """9,000 users with items 1 and 2: three negatives of ten, so each about 2,700 times (standard error 43)."""
    drawn = draw([[1, 2]] * 9000, 3, 0)
    counts = np.bincount(drawn.items.ravel(), minlength=NUM_ITEMS + 1)
    assert counts[:3].tolist() == [0, 0, 9000]
    assert counts[3:] == pytest.approx(2700, abs=5 * 43)
    assert np.bincount(drawn.target_columns) == pytest.approx(2250, abs=5 * 41)


def test_exactly_enough_items_are_sufficient() -> None:
    """Of 101 items each user bought two: all other 99 are needed, and redrawing would hardly find the last."""
    histories = [[user, user + 1] for user in range(1, 31)]
    drawn = draw(histories, 99, 0, list(range(102)))
    for row, bought in zip(drawn.items.tolist(), histories, strict=True):
        assert sorted(row) == [item for item in range(1, 102) if item != bought[0]]


def test_too_few_items_are_an_error_with_numbers() -> None:
    with pytest.raises(DataError, match="bought all but 9 of 12 items; 10 negatives are needed"):
        draw([[1, 2], [1, 2, 3]], 10, 0)
    titles = [0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]  # all other items share one title
    with pytest.raises(
        DataError, match="only 1 items with different titles qualify, but 2 negatives"
    ):
        draw([[1, 2]], 2, 0, titles)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Desk Lamp", "desk lamp"),
        ("Desk Lamp", " DeskLamp\t"),
        ("12\u201d Pan \u2018steel\u2019", "12 pan 'STEEL'"),
        ('"Quoted"', "`quoted`"),
    ],
)
def test_case_quotes_and_white_space_do_not_distinguish_titles(first: str, second: str) -> None:
    assert normalize_title(first) == normalize_title(second)
    labels = title_labels(catalog([first, "Another", second]))
    assert labels[1] == labels[3] != labels[2]


def test_other_differences_distinguish_titles() -> None:
    labels = title_labels(catalog(["Lamp 1", "Lamp 2", "Lamp, 1", "Lámp 1", "ランプ"]))
    assert len(set(labels.tolist())) == 6  # with the padding


@settings(deadline=None)
@given(num=st.integers(0, 40), limit=st.none() | st.integers(1, 50), seed=st.integers(0, 9))
def test_sampled_targets_are_all_or_a_sorted_sample(num: int, limit: int | None, seed: int) -> None:
    rows, again = (
        sample_targets(num, limit, np.random.default_rng(seed)).tolist() for _ in range(2)
    )
    assert rows == again == sorted(set(rows))
    assert len(rows) == (num if limit is None else min(num, limit))
    assert set(rows) <= set(range(num))


def test_sampled_targets_are_uniform() -> None:
    """2,000 draws of 5 of 20: each about 500 times (standard error 19)."""
    generator = np.random.default_rng(0)
    drawn = np.concatenate([sample_targets(20, 5, generator) for _ in range(2000)])
    assert np.bincount(drawn, minlength=20) == pytest.approx(500, abs=5 * 19.4)
