"""Twelve users filtered by hand, in both ways; the user sample; the k-core against a slow loop (specification 10.7)."""

import json
import random
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import ibis
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.core.config import from_mapping
from llmsrec.core.errors import ConfigError, DataError
from llmsrec.parsing.ingest import InteractionsConfig, ingest
from llmsrec.preprocessing.k_core import (
    TEST,
    TRAIN,
    VALID,
    SplitsConfig,
    iterative_core,
    leave_one_out,
    select_interactions,
)
from llmsrec.relational.interactions import Interactions
from tests.conftest import DAY, interactions_of, splits_config

Parts = tuple[str, str, str]  # items in train, valid and test

# Buyers per item: a 9, b 8, c 8, d 8, e 5, p 3, x 2, q 2, and f, y, z, r, s 1.
TWELVE = {
    "u01": "abcde",
    "u02": "abcde",
    "u03": "abcdef",
    "u04": "bcaed",
    "u05": "acbxd",
    "u06": "abx",
    "u07": "yadbc",
    "u08": "cdz",
    "u09": "pqr",
    "u10": "pqs",
    "u11": "pbacd",
    "u12": "ea",
}

# Thresholds 3 and 3. Items with one or two buyers are dropped; purchases of a user are counted before that, training
# purchases after.
SINGLE_PASS: dict[str, Parts] = {
    "u01": ("abc", "d", "e"),
    "u02": ("abc", "d", "e"),
    "u03": ("abcd", "e", ""),  # f was test, and is dropped
    "u04": ("bca", "e", "d"),
    "u05": ("acb", "", "d"),  # x was valid, and is dropped
    "u11": ("pba", "c", "d"),  # p has three buyers, two of whom are dropped
    # u07 is dropped: of its training items y, a and d only two remain; b and c do not count
}

# u09 and u10 are dropped for lack of items, then p for lack of users; the rest is split again.
ITERATIVE: dict[str, Parts] = {
    "u01": ("abc", "d", "e"),
    "u02": ("abc", "d", "e"),
    "u03": ("abc", "d", "e"),
    "u04": ("bca", "e", "d"),
    "u05": ("ac", "b", "d"),
    "u07": ("ad", "b", "c"),
    "u11": ("ba", "c", "d"),
}


def parts_of(rows: ibis.Table) -> dict[str, Parts]:
    frame = rows.to_pandas().sort_values(["user_id", "position"])
    return {
        str(user): tuple("".join(group["item_id"][group["part"] == part]) for part in range(3))  # type: ignore[misc]
        for user, group in frame.groupby("user_id")
    }


def twelve() -> Interactions:
    return interactions_of({user: list(items) for user, items in TWELVE.items()})


@pytest.mark.parametrize(
    ("kcore", "expected"), [("single_pass", SINGLE_PASS), ("iterative", ITERATIVE)]
)
def test_twelve_users_by_hand(kcore: str, expected: dict[str, Parts]) -> None:
    config = splits_config(kcore=kcore, user_threshold=3, item_threshold=3)
    assert parts_of(select_interactions(twelve(), config)) == expected


def test_single_pass_counts_only_the_sampled_users() -> None:
    """Of the six, five bought a, c and d, four b, but only three e; of the twelve, five bought e."""
    config = splits_config(kcore="single_pass", user_threshold=3, item_threshold=4, sample_rate=0.5)
    sampled = random.Random(0).sample(sorted(TWELVE), 6)
    assert sorted(sampled) == ["u01", "u04", "u05", "u07", "u08", "u12"]
    assert parts_of(select_interactions(twelve(), config)) == {
        "u01": ("abc", "d", ""),
        "u04": ("bca", "", "d"),
        "u05": ("acb", "", "d"),
    }


def from_file(folder: Path, purchases: list[tuple[str, str, int]]) -> Interactions:
    """Interactions whose source order is that of `purchases` (user, item, day)."""
    raw = folder / "raw"
    raw.mkdir()
    lines = [
        json.dumps({"user_id": user, "parent_asin": item, "timestamp": day * DAY})
        for user, item, day in purchases
    ]
    (raw / "x.jsonl").write_text("\n".join(lines))
    config = InteractionsConfig(date(1995, 7, 16), date(2035, 1, 1), 0.0, 0)
    ingest(raw, folder / "out", config, rejects_file=folder / "rejects.parquet")
    return Interactions.load(folder / "out")


def users_by_first_row(rows: ibis.Table) -> list[str]:
    frame = rows.to_pandas()
    assert (frame.groupby("user_id")["first_row"].nunique() == 1).all()
    return list(frame.drop_duplicates("user_id").sort_values("first_row")["user_id"])


def test_users_are_numbered_reading_train_then_valid_then_test(tmp_path: Path) -> None:
    """Y has the first line of the file, but it is test; of the training lines, the first is of X and the last of Y."""
    purchases = [("Y", "t", 12_009), ("Z", "v", 12_002), ("X", "a", 12_001), ("Z", "a", 12_001)]
    purchases += [("Z", "t", 12_003), ("Y", "a", 12_001), ("Y", "v", 12_002)]
    purchases += [("X", "v", 12_002), ("X", "t", 12_003)]
    interactions = from_file(tmp_path, purchases)
    single = select_interactions(interactions, splits_config(kcore="single_pass"))
    assert users_by_first_row(single) == ["X", "Z", "Y"]
    iterative = select_interactions(interactions, splits_config(kcore="iterative"))
    assert users_by_first_row(iterative) == [
        "Y",
        "Z",
        "X",
    ]  # parts are not assigned before the sample is drawn


@pytest.mark.parametrize(
    ("kcore", "seed"), [("single_pass", 0), ("iterative", 0), ("iterative", 7)]
)
def test_users_are_sampled_as_in_the_released_code(tmp_path: Path, kcore: str, seed: int) -> None:
    """`random.sample` on the list in order of appearance, floor(n * rate) of them."""
    users = [f"U{number:02d}" for number in (5, 3, 9, 1, 8, 2, 7, 4, 6, 0, 11)]
    purchases = [(user, item, 12_000 + "abcd".index(item)) for user in users for item in "abcd"]
    config = splits_config(kcore=kcore, sample_rate=0.4, seed=seed)
    rows = select_interactions(from_file(tmp_path, purchases), config)
    expected = random.Random(seed).sample(users, 4)  # floor(11 * 0.4)
    assert sorted(parts_of(rows)) == sorted(expected)
    assert users_by_first_row(rows) == [user for user in users if user in expected]


def test_an_empty_sample_is_an_error() -> None:
    with pytest.raises(DataError, match=r"sample_rate 0\.05 of 12 users is none"):
        select_interactions(twelve(), splits_config(sample_rate=0.05))


def test_thresholds_that_no_user_meets_are_an_error() -> None:
    with pytest.raises(DataError, match=r"user_threshold 9 and splits\.item_threshold 1"):
        select_interactions(twelve(), splits_config(user_threshold=9))


def test_a_ready_split_keeps_its_parts() -> None:
    rows = interactions_of({"U": list("abcd"), "V": list("abc")}).rows
    ready = rows.mutate(part=ibis.cases((ibis._.item_id == "c", VALID), else_=TRAIN))
    assert parts_of(leave_one_out(ready)) == {"U": ("abd", "c", ""), "V": ("ab", "c", "")}
    assert parts_of(leave_one_out(rows)) == {"U": ("ab", "c", "d"), "V": ("a", "b", "c")}


def test_a_short_history_has_no_training_part() -> None:
    rows = interactions_of({"U": ["a", "b"], "V": ["a"]}).rows
    assert parts_of(leave_one_out(rows)) == {"U": ("", "a", "b"), "V": ("", "", "a")}
    assert (TRAIN, VALID, TEST) == (0, 1, 2)


def slow_core(pairs: set[tuple[str, str]], user_threshold: int, item_threshold: int) -> set[Any]:
    """Remove one row at a time whose user or item is too rare, until there is none."""
    pairs = set(pairs)
    while True:
        users = Counter(user for user, _ in pairs)
        items = Counter(item for _, item in pairs)
        rare = [
            (user, item)
            for user, item in pairs
            if users[user] < user_threshold or items[item] < item_threshold
        ]
        if not rare:
            return pairs
        pairs.remove(rare[0])


@settings(max_examples=10, deadline=None)
@given(
    pairs=st.sets(st.tuples(st.sampled_from("UVWXYZ"), st.sampled_from("abcdef")), min_size=14),
    user_threshold=st.integers(2, 3),
    item_threshold=st.integers(2, 4),
)
def test_the_k_core_equals_a_slow_loop(
    pairs: set[tuple[str, str]], user_threshold: int, item_threshold: int
) -> None:
    expected = slow_core(pairs, user_threshold, item_threshold)
    frame = pd.DataFrame(sorted(pairs), columns=["user_id", "item_id"])
    rows = ibis.duckdb.connect().create_table("rows", frame)
    if not expected:
        with pytest.raises(DataError, match="no interaction survives"):
            iterative_core(rows, user_threshold, item_threshold)
        return
    core = iterative_core(rows, user_threshold, item_threshold).to_pandas()
    assert set(zip(core["user_id"], core["item_id"], strict=True)) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_rate": 0.0}, "sample_rate"),
        ({"sample_rate": 1.1}, "sample_rate"),
        ({"temporal_share": 0.5}, "temporal_share"),
        ({"user_threshold": 0}, "at least 1"),
        ({"item_threshold": 0}, "at least 1"),
        (
            {"split": "global_temporal", "kcore": "single_pass"},
            "use iterative with global_temporal",
        ),
    ],
)
def test_an_invalid_configuration_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(SplitsConfig, {**vars(splits_config()), **changes}, "splits")
