"""Histories, timestamps and k as the Python API hands them over; test_mlflow_model.py has those of the server."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmsrec.core.errors import DataError
from llmsrec.serving.requests import new_items, number_of_items, user_history, wrong_timestamp

TIMES = [1_700_000_000_000, 1_700_000_000_000, 1_700_086_400_000]


@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, pd.Series, lambda values: pd.Series(values).to_numpy()]
)
def test_lists_of_every_library_are_accepted(kind: Any) -> None:
    found = user_history({"history": kind(["a", "b", "c"]), "timestamps": kind(TIMES)}, "call")
    assert found == user_history({"history": ["a", "b", "c"], "timestamps": TIMES}, "call")
    assert found.history == ("a", "b", "c")
    assert found.timestamps == tuple(TIMES)
    assert all(type(value) is int for value in found.timestamps)


@pytest.mark.parametrize("history", ["I003", b"I003", 5, None, True, {"I003"}, [5], [None], [b"a"]])
def test_values_other_than_lists_of_strings_are_refused(history: Any) -> None:
    with pytest.raises(DataError, match=r"call\.history(\[0\])? is .*; expected a (list|text)"):
        user_history({"history": history}, "call")


def test_a_key_that_is_not_known_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"call\.exclude is unknown; known keys: history, timestamps"
    ):
        user_history({"history": [], "exclude": []}, "call")


@pytest.mark.parametrize(
    ("year", "ms"), [(1974, 126_230_400_000), (1995, 788_918_400_000), (2100, 4_102_444_800_000)]
)
def test_time_units_are_recognised_from_1974_to_2100(year: int, ms: int) -> None:
    assert wrong_timestamp(ms) is None, year
    for unit, value in (
        ("seconds", ms // 1000),
        ("microseconds", ms * 1000),
        ("nanoseconds", ms * 10**6),
    ):
        assert str(wrong_timestamp(value)).startswith(f"it looks like {unit}; expected"), year


@pytest.mark.parametrize("k", [None, True, 2.0, 2.5, "3", [3], float("nan")])
def test_k_is_a_whole_number(k: Any) -> None:
    with pytest.raises(DataError, match="expected a whole number between 1 and the 40 items"):
        number_of_items(k, 40)


@pytest.mark.parametrize("k", [0, -1, 41, 10**30])
def test_k_lies_within_the_catalog(k: int) -> None:
    with pytest.raises(DataError, match=f"k is {k}; it must lie between 1 and the 40 items"):
        number_of_items(k, 40)
    assert number_of_items(np.int64(40), 40) == 40


def test_new_items_are_two_lists_of_texts() -> None:
    assert new_items(["a"], ["A thing"]).new_titles == ("A thing",)
    for items, titles in (("ab", ["A", "B"]), (["a"], "A"), ([1], ["A"]), (["a"], [None])):
        with pytest.raises(DataError, match=r"expected a (list|text)"):
            new_items(items, titles)
