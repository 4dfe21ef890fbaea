"""Ragged histories against Python lists, and the shuffle (specification 10.5)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.data.sequences import Sequences, from_rows

ROWS = st.lists(st.lists(st.integers(1, 50), max_size=7), max_size=8)


def lists(sequences: Sequences) -> list[list[int]]:
    return [sequences[row].tolist() for row in range(len(sequences))]


def with_times(rows: list[list[int]]) -> Sequences:
    """The timestamp of position p in row u is 100 u + p."""
    return from_rows(rows, [[100 * u + p for p in range(len(row))] for u, row in enumerate(rows)])


def test_rows_by_hand() -> None:
    sequences = from_rows([[3, 1, 2], [], [5]], [[10, 20, 30], [], [40]])
    assert sequences.offsets.tolist() == [0, 3, 3, 4]
    assert lists(sequences) == [[3, 1, 2], [], [5]]
    assert sequences.times(0).tolist() == [10, 20, 30]
    assert sequences.lengths.tolist() == [3, 0, 1]
    assert sequences.row_indices.tolist() == [0, 0, 0, 2]
    assert sequences.padded().tolist() == [[3, 1, 2], [0, 0, 0], [0, 0, 5]]
    assert sequences.padded(2).tolist() == [[1, 2], [0, 0], [0, 5]]
    assert sequences.padded(4).tolist() == [[0, 3, 1, 2], [0, 0, 0, 0], [0, 0, 0, 5]]
    assert lists(sequences.take(np.array([2, 0]))) == [[5], [3, 1, 2]]
    assert lists(sequences.take(np.array([0, 0, 2]), np.array([2, 0, 1]))) == [[3, 1], [], [5]]
    assert lists(sequences.last(2)) == [[1, 2], [], [5]]


def test_no_rows_and_empty_rows() -> None:
    assert len(from_rows([])) == 0
    assert from_rows([]).padded().shape == (0, 0)
    assert from_rows([[], []]).padded(3).tolist() == [[0, 0, 0], [0, 0, 0]]


@settings(deadline=None)
@given(rows=ROWS, count=st.integers(0, 9))
def test_last_and_padded_equal_list_slices(rows: list[list[int]], count: int) -> None:
    sequences = with_times(rows)
    tail = sequences.last(count)
    expected = [row[max(0, len(row) - count) :] for row in rows]
    assert lists(tail) == expected
    assert lists(sequences.take(np.arange(len(rows)))) == rows
    for number, row in enumerate(rows):
        first = len(row) - len(expected[number])
        assert tail.times(number).tolist() == [100 * number + p for p in range(first, len(row))]
    assert sequences.padded(count).tolist() == [[0] * (count - len(row)) + row for row in expected]


@settings(deadline=None)
@given(rows=ROWS.filter(len), data=st.data())
def test_take_equals_list_prefixes(rows: list[list[int]], data: st.DataObject) -> None:
    selected = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    ends = [data.draw(st.integers(0, len(rows[row]))) for row in selected]
    taken = with_times(rows).take(np.array(selected, dtype=int), np.array(ends, dtype=int))
    assert lists(taken) == [rows[row][:end] for row, end in zip(selected, ends, strict=True)]
    assert taken.timestamps.tolist() == [
        100 * row + p for row, end in zip(selected, ends, strict=True) for p in range(end)
    ]


@settings(deadline=None)
@given(rows=ROWS, seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_shuffle_permutes_only_the_last_items(
    rows: list[list[int]], seed: int, data: st.DataObject
) -> None:
    last = data.draw(st.integers(0, 8))
    sequences = with_times(rows)
    shuffled = sequences.shuffled(np.random.default_rng(seed), last)
    assert shuffled.offsets.tolist() == sequences.offsets.tolist()
    assert shuffled.timestamps.tolist() == sequences.timestamps.tolist()
    for result, row in zip(lists(shuffled), rows, strict=True):
        fixed = max(0, len(row) - last)
        assert result[:fixed] == row[:fixed]
        assert sorted(result[fixed:]) == sorted(row[fixed:])
    assert lists(sequences) == rows  # the original is unchanged


@settings(deadline=None)
@given(rows=ROWS, seed=st.integers(0, 2**32 - 1))
def test_a_shuffle_is_the_same_for_the_same_seed(rows: list[list[int]], seed: int) -> None:
    first, second = (from_rows(rows).shuffled(np.random.default_rng(seed)) for _ in range(2))
    assert lists(first) == lists(second)
    assert [sorted(row) for row in lists(first)] == [sorted(row) for row in rows]


def test_every_order_is_equally_likely() -> None:
    """6,000 rows of three: each of the six orders about 1,000 times (five standard errors: 144)."""
    shuffled = from_rows([[1, 2, 3]] * 6000).shuffled(np.random.default_rng(0))
    orders, counts = np.unique(shuffled.padded(), axis=0, return_counts=True)
    assert len(orders) == 6
    assert counts == pytest.approx(1000, abs=144)


def test_another_seed_gives_another_order() -> None:
    sequences = from_rows([list(range(1, 30))])
    first, second = (lists(sequences.shuffled(np.random.default_rng(seed))) for seed in (0, 1))
    assert first != second
