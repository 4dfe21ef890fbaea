"""Real datasets from raw files to splits: null ratings, long descriptions, many ties, lines in random order."""

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

pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"no real datasets: there is no {SHARED}"
)

SCIENTIFIC = "Industrial_and_Scientific"
CONFIG = InteractionsConfig(date(1995, 7, 16), date(2035, 1, 1), 0.0, 0)


def link(folder: Path, *datasets: str) -> Path:
    raw = folder / "raw"
    raw.mkdir(parents=True)
    for dataset in datasets:
        for name in (f"{dataset}.jsonl.gz", f"meta_{dataset}.jsonl.gz"):
            (raw / name).symlink_to(SHARED / name)
    return raw


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scientific")


@pytest.fixture(scope="module")
def counts(folder: Path) -> dict[str, Any]:
    raw = link(folder, SCIENTIFIC)
    return ingest(raw, folder / "out", CONFIG, rejects_file=folder / "rejects.parquet")


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
    times: dict[str, dict[str, int]] = defaultdict(dict)
    with gzip.open(SHARED / f"{SCIENTIFIC}.jsonl.gz", "rt") as lines:
        for line in lines:
            record = json.loads(line)
            items, item, time = times[record["user_id"]], record["parent_asin"], record["timestamp"]
            items[item] = min(time, items.get(item, time))
    return times


def test_the_counts_are_those_of_the_readme(
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
    assert rows["rating"].isna().all()  # all are null, and no line is rejected for it
    untied = 0
    for user, group in rows.groupby("user_id"):
        expected = sorted(first_times[str(user)].items(), key=lambda pair: pair[1])
        assert list(group["timestamp"]) == [time for _, time in expected]
        if group["timestamp"].is_unique:
            assert list(group["item_id"]) == [item for item, _ in expected]
            untied += 1
    assert untied > 1000


def test_texts_are_complete_and_on_one_line(splits: Splits) -> None:
    items = splits.catalog.items
    assert (items["title"] != "Empty title").all()
    assert (items["description"] != "Empty description").mean() > 0.9  # 93 % of the items have one
    for column in ("title", "description", "brand", "category"):
        assert items[column].map(str.isprintable).all()
        assert (items[column] == items[column].str.strip()).all()


def test_the_splits_are_valid_for_every_user(splits: Splits) -> None:
    statistics = split_statistics(splits)
    assert (
        statistics["users"] == statistics["test_evaluated"] == statistics["valid_evaluated"] > 2_000
    )
    assert (splits.train_lengths == splits.sequences.lengths - 2).all()
    for part in ("valid", "test"):
        users = splits.evaluated(part).users
        ordered = np.sort(splits.candidates[part].items, axis=1)
        assert (np.diff(ordered, axis=1) > 0).all()
        for row in range(0, len(users), 97):
            bought = set(splits.sequences[int(users[row])].tolist())
            candidates = set(splits.candidates[part].items[row].tolist())
            assert bought & candidates == {int(splits.candidates[part].targets[row])}


def test_the_5_core_is_small(interactions: Interactions) -> None:
    """About 275 users, as the README says."""
    config = splits_config(user_threshold=5, item_threshold=5)
    assert split(interactions, config).num_users == pytest.approx(275, abs=10)


def test_an_empty_core_is_an_error(interactions: Interactions) -> None:
    with pytest.raises(DataError, match="no interaction survives"):
        split(interactions, splits_config(user_threshold=20, item_threshold=20))


def test_a_larger_dataset_does_not_depend_on_the_order_of_its_lines(tmp_path: Path) -> None:
    """165,247 purchases, 47 % of neighbours on one day: the same bytes twice, and the same histories if shuffled."""
    dataset = "Toys_and_Games"
    raw = link(tmp_path / "first", dataset)
    shuffled = tmp_path / "second" / "raw"
    shuffled.mkdir(parents=True)
    lines = gzip.decompress((SHARED / f"{dataset}.jsonl.gz").read_bytes()).splitlines(keepends=True)
    random.Random(0).shuffle(lines)
    (shuffled / f"{dataset}.jsonl").write_bytes(b"".join(lines))
    rejects = tmp_path / "rejects.parquet"
    counts = ingest(raw, tmp_path / "first" / "out", CONFIG, rejects_file=rejects)
    ingest(raw, tmp_path / "first" / "again", CONFIG, rejects_file=rejects)
    ingest(shuffled, tmp_path / "second" / "out", CONFIG, rejects_file=rejects)
    assert (counts["users"], counts["items"], counts["interactions"]) == (19_124, 11_758, 165_247)
    assert counts["tie_share"] == pytest.approx(0.47, abs=0.005)
    name = "interactions.parquet"
    assert sha256(tmp_path / "first" / "out" / name) == sha256(tmp_path / "first" / "again" / name)
    first, second = (
        pd.read_parquet(tmp_path / run / "out" / name).drop(columns="source_order")
        for run in ("first", "second")
    )
    pd.testing.assert_frame_equal(first, second)
