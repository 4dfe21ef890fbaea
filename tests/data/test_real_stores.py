"""Real stores from end to end: null ratings, long descriptions, many ties, lines in random order."""

import gzip
import json
import random
from collections import defaultdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmsrec.core.errors import DataError
from llmsrec.core.files import sha256
from llmsrec.data.splits import Splits
from llmsrec.parsing.ingest import InteractionsConfig, ingest
from llmsrec.preprocessing.splitting import split, split_statistics
from llmsrec.relational.interactions import Interactions
from tests.conftest import SHARED, splits_config

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real stores: there is no {SHARED}")

SCIENTIFIC = "Industrial_and_Scientific"
CONFIG = InteractionsConfig(date(1995, 7, 16), date(2035, 1, 1), 0.0, 0)


def link(folder: Path, *stores: str) -> Path:
    raw = folder / "raw"
    raw.mkdir(parents=True)
    for store in stores:
        for name in (f"{store}.jsonl.gz", f"meta_{store}.jsonl.gz"):
            (raw / name).symlink_to(SHARED / name)
    return raw


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scientific")


@pytest.fixture(scope="module")
def counts(folder: Path) -> dict[str, Any]:
    raw = link(folder, SCIENTIFIC)
    return ingest(raw, folder / "out", CONFIG, rejects_file=folder / "kept.parquet")


@pytest.fixture(scope="module")
def interactions(folder: Path, counts: dict[str, Any]) -> Interactions:
    return Interactions.load(folder / "out")


@pytest.fixture(scope="module")
def splits(interactions: Interactions) -> Splits:
    config = splits_config(negatives=99, generation_negatives=19, user_threshold=5)
    return split(interactions, config)


@pytest.fixture(scope="module")
def first_times() -> dict[str, dict[str, int]]:
    """user -> item -> its earliest time, by a loop over the lines."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    with gzip.open(SHARED / f"{SCIENTIFIC}.jsonl.gz", "rt") as lines:
        for line in lines:
            record = json.loads(line)
            items, item, time = found[record["user_id"]], record["parent_asin"], record["timestamp"]
            items[item] = min(time, items.get(item, time))
    return found


def test_every_line_is_counted_as_the_readme_has_it(
    counts: dict[str, Any], first_times: dict[str, dict[str, int]]
) -> None:
    pairs = sum(len(items) for items in first_times.values())
    assert counts["reviews"] == {
        "files": [f"{SCIENTIFIC}.jsonl.gz"],
        "lines": 22_743, "rows": pairs, "duplicates": 22_743 - pairs, "rejects": 0, "rejects_by_reason": {},
    }  # fmt: skip
    assert (counts["users"], counts["items"]) == (3_285, 3_541)
    assert counts["metadata"]["rows"] == 3_541
    assert counts["items_without_metadata"] == 0
    assert counts["first_day"] >= "2016"
    assert counts["last_day"] < "2019"


def test_histories_equal_those_of_a_loop_over_the_lines(
    interactions: Interactions, first_times: dict[str, dict[str, int]]
) -> None:
    rows = interactions.rows.to_pandas().sort_values(["user_id", "position"])
    assert rows["rating"].isna().all()  # the store has none, and no line is lost for it
    untied = 0
    for user, group in rows.groupby("user_id"):
        expected = sorted(first_times[str(user)].items(), key=lambda pair: pair[1])
        assert list(group["timestamp"]) == [time for _, time in expected]
        if group["timestamp"].is_unique:
            assert list(group["item_id"]) == [item for item, _ in expected]
            untied += 1
    assert untied > 1000


def test_texts_are_whole_and_one_line(splits: Splits) -> None:
    items = splits.catalog.items
    assert (items["title"] != "Empty title").all()
    assert (items["description"] != "Empty description").mean() > 0.9  # 93 % have one
    for column in ("title", "description", "brand", "category"):
        assert items[column].map(str.isprintable).all()
        assert (items[column] == items[column].str.strip()).all()


def test_splits_of_it_hold_for_every_user(splits: Splits) -> None:
    found = split_statistics(splits)
    assert found["users"] == found["test_evaluated"] == found["valid_evaluated"] > 2_000
    assert (splits.train_lengths == splits.sequences.lengths - 2).all()
    for part in ("valid", "test"):
        users = splits.evaluated(part).users
        ordered = np.sort(splits.candidates[part].items, axis=1)
        assert (np.diff(ordered, axis=1) > 0).all()
        for row in range(0, len(users), 97):
            owned = set(splits.sequences[int(users[row])].tolist())
            offered = set(splits.candidates[part].items[row].tolist())
            assert owned & offered == {int(splits.candidates[part].targets[row])}


def test_a_true_core_of_five_leaves_almost_nothing(interactions: Interactions) -> None:
    """The README warns of it: about 275 users."""
    config = splits_config(user_threshold=5, item_threshold=5)
    assert split(interactions, config).num_users == pytest.approx(275, abs=10)


def test_a_threshold_that_empties_the_store_is_an_error(interactions: Interactions) -> None:
    with pytest.raises(DataError, match="no interaction survives"):
        split(interactions, splits_config(user_threshold=20, item_threshold=20))


def test_a_larger_store_gives_the_same_whatever_the_order_of_its_lines(tmp_path: Path) -> None:
    """165,247 purchases, 47 % of neighbours on one day; twice the same bytes, and shuffled the same histories."""
    store = "Toys_and_Games"
    raw = link(tmp_path / "one", store)
    shuffled = tmp_path / "two" / "raw"
    shuffled.mkdir(parents=True)
    lines = gzip.decompress((SHARED / f"{store}.jsonl.gz").read_bytes()).splitlines(keepends=True)
    random.Random(0).shuffle(lines)
    (shuffled / f"{store}.jsonl").write_bytes(b"".join(lines))
    kept = tmp_path / "kept.parquet"
    counts = ingest(raw, tmp_path / "one" / "out", CONFIG, rejects_file=kept)
    ingest(raw, tmp_path / "one" / "again", CONFIG, rejects_file=kept)
    ingest(shuffled, tmp_path / "two" / "out", CONFIG, rejects_file=kept)
    assert (counts["users"], counts["items"], counts["interactions"]) == (19_124, 11_758, 165_247)
    assert counts["tie_share"] == pytest.approx(0.47, abs=0.005)
    name = "interactions.parquet"
    assert sha256(tmp_path / "one" / "out" / name) == sha256(tmp_path / "one" / "again" / name)
    one, two = (
        pd.read_parquet(tmp_path / run / "out" / name).drop(columns="source_order")
        for run in ("one", "two")
    )
    pd.testing.assert_frame_equal(one, two)
