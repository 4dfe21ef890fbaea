"""The table of all users' recommendations: what it holds, and what a run after a kill does."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import llmsrec
from llmsrec.bulk import recommendations
from llmsrec.bulk.ranker import BulkRanker, UserVectors
from llmsrec.bulk.recommendations import write_recommendations
from llmsrec.core.errors import ArtifactError, DataError
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.serving.recommender import Recommender
from llmsrec.serving.requests import UserHistory
from llmsrec.stages import recommend_all

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommendations, "SHARD", 32)
    monkeypatch.setattr(recommendations, "PROMPTS", 20)
    monkeypatch.setattr(recommendations, "ROW_GROUP", 2)


def arguments(artifacts: Path) -> list[str]:
    parts = ("splits", "teacher", "backbone", "student", "recommender")
    paths = [word for part in parts for word in (f"--{part}", str(artifacts / part))]
    return [*paths, "--out", "out", "--scratch", "scratch"]


class Interrupted(Exception):
    pass


class Counting(BulkRanker):
    """Counts users that are encoded, and is interrupted before it encodes more than `limit`."""

    def __init__(self, recommender: Recommender, limit: float = np.inf) -> None:
        super().__init__(recommender.parts, recommender.fitted.weights)
        self.encoded, self.limit = 0, limit

    def represent(self, histories: Sequences) -> UserVectors:
        if self.encoded + len(histories) > self.limit:
            raise Interrupted
        self.encoded += len(histories)
        return super().represent(histories)


def test_every_user_has_the_items_that_the_server_recommends(
    artifacts: Path, recommender: Recommender, splits: Splits, tmp_path: Path
) -> None:
    llmsrec.recommend_all(artifacts, tmp_path / "all.parquet", k=4)
    table = pq.read_table(tmp_path / "all.parquet")
    assert list(tmp_path.iterdir()) == [tmp_path / "all.parquet"]
    assert table.schema.names == ["user_id", "rank", "item_id", "score"]
    assert table.schema.types == [pa.string(), pa.int32(), pa.string(), pa.float32()]
    rows = table.to_pylist()
    assert [row["user_id"] for row in rows] == [
        u for u in sorted(splits.user_ids) for _ in range(4)
    ]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4] * splits.num_users
    names = [*splits.catalog.items["item_id"]]
    users = [
        UserHistory(
            tuple(names[item - 1] for item in splits.sequences[row]),
            tuple(splits.sequences.times(row).tolist()),
        )
        for row in range(splits.num_users)
    ]
    answers, same = recommender.recommend_batch(users, 4), []
    for user, history, answer in zip(splits.user_ids, users, answers, strict=True):
        own = [row for row in rows if row["user_id"] == user]
        same += [
            row["item_id"] == item.item_id for row, item in zip(own, answer.items, strict=True)
        ]
        assert not {row["item_id"] for row in own} & set(history.history)
        scores = [item.score for item in answer.items]
        assert [row["score"] for row in own] == pytest.approx(scores, abs=1e-4)
    assert np.mean(same) > 0.99  # scores that differ by rounding may change places


def test_a_user_has_as_many_rows_as_there_are_items_left(
    artifacts: Path, splits: Splits, tmp_path: Path
) -> None:
    llmsrec.recommend_all(artifacts, tmp_path / "all.parquet", k=splits.num_items)
    counts = pq.read_table(tmp_path / "all.parquet").to_pandas().groupby("user_id").size()
    for row, user in enumerate(splits.user_ids):
        assert counts[user] == splits.num_items - len(set(splits.sequences[row].tolist()))


def test_an_interrupted_run_encodes_only_the_users_that_are_missing(
    recommender: Recommender, splits: Splits, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scratch, whole, resumed = (tmp_path / name for name in ("scratch", "whole", "resumed"))
    write_recommendations(Counting(recommender), splits, 5, whole, tmp_path / "other")
    with pytest.raises(Interrupted):
        write_recommendations(Counting(recommender, 70), splits, 5, resumed, scratch)
    assert not resumed.exists()
    second = Counting(recommender)
    write_recommendations(second, splits, 5, resumed, scratch)
    assert second.encoded == splits.num_users - 64  # two shards of 32 were saved
    assert resumed.read_bytes() == whole.read_bytes()


def test_shards_of_other_arguments_are_not_used(
    recommender: Recommender, splits: Splits, tmp_path: Path
) -> None:
    file, scratch = tmp_path / "file", tmp_path / "scratch"
    write_recommendations(Counting(recommender), splits, 5, file, scratch)
    same, other_k = Counting(recommender), Counting(recommender)
    write_recommendations(same, splits, 5, file, scratch)
    assert same.encoded == 0
    write_recommendations(other_k, splits, 6, file, scratch)
    assert other_k.encoded == splits.num_users
    weights = Counting(recommender)
    weights.dense = weights.dense * np.float32(2)
    write_recommendations(weights, splits, 6, file, scratch)
    assert weights.encoded == splits.num_users


def test_a_run_that_was_killed_anywhere_ends_with_the_same_bytes(
    artifacts: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.bulk.killed", str(artifacts), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 10


def test_the_stage_writes_the_table_uploads_it_and_clears_its_scratch_folder(
    artifacts: Path,
    tmp_path: Path,
    params: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    s3: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    params(recommendations={"k": 4, "upload": "s3://bucket/shop"})
    recommend_all.main(arguments(artifacts))
    file = tmp_path / "out" / "recommendations.parquet"
    assert not (tmp_path / "scratch").exists()
    body = s3.get_object(Bucket="bucket", Key="shop/recommendations.parquet")["Body"].read()
    assert body == file.read_bytes()
    llmsrec.recommend_all(artifacts, tmp_path / "all.parquet", k=4)
    assert (tmp_path / "all.parquet").read_bytes() == body


def test_the_default_uploads_nothing(
    artifacts: Path, tmp_path: Path, params: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any connection beyond this machine fails a test."""
    monkeypatch.chdir(tmp_path)
    params()
    recommend_all.main(arguments(artifacts))
    table = pq.read_table(tmp_path / "out" / "recommendations.parquet")
    assert table["rank"].to_numpy().max() == 10


def test_a_wrong_k_and_a_folder_without_splits_are_refused(artifacts: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="k is 41; it must lie between 1 and the 40 items"):
        llmsrec.recommend_all(artifacts, tmp_path / "all.parquet", k=41)
    bundle = tmp_path / "bundle"
    (bundle / "splits").mkdir(parents=True)
    for part in ("teacher", "backbone", "student", "recommender", "splits/items.parquet"):
        (bundle / part).symlink_to(artifacts / part)
    with pytest.raises(ArtifactError, match=r"splits/interactions.parquet is missing"):
        llmsrec.recommend_all(bundle, tmp_path / "all.parquet")
    assert list(tmp_path.iterdir()) == [bundle]
