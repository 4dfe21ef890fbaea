"""Import from an inbox: each file is imported once or rejected with a reason, whenever the process is killed."""

import gzip
import json
import shutil
import subprocess
import sys
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llmsrec.arrivals.importer import ImportResult, archive_imported, import_files
from llmsrec.arrivals.inbox import FolderInbox, Inbox, S3Inbox
from llmsrec.parsing.ingest import InteractionsConfig, ingest
from llmsrec.relational.interactions import Interactions
from llmsrec.sources.s3 import S3Remote

DAY = 86_400_000
CONFIG = InteractionsConfig(date(1995, 7, 16), date(2035, 1, 1), 0.25, 0)


def lines(user: str, *items: str, day: int = 12_000) -> bytes:
    rows = [
        {"user_id": user, "parent_asin": item, "timestamp": (day + position) * DAY}
        for position, item in enumerate(items)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "shop"
    folder.mkdir(parents=True)
    (folder / "shop.jsonl").write_bytes(lines("U", "A", "B"))
    return folder


@pytest.fixture
def inbox(tmp_path: Path) -> FolderInbox:
    return FolderInbox(tmp_path / "inbox")


def write(inbox: FolderInbox, **files: bytes) -> None:
    for name, content in files.items():
        (inbox.folder / name.replace("__", ".")).write_bytes(content)


def import_all(inbox: Inbox, raw: Path) -> dict[str, ImportResult]:
    results = import_files(inbox, inbox.files(), raw, CONFIG)
    archive_imported(inbox, results, raw)
    return {result.file.name: result for result in results}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_files_are_imported_under_the_hash_of_their_content(inbox: FolderInbox, raw: Path) -> None:
    reviews, texts = gzipped(lines("U", "C")), b'{"parent_asin": "C", "title": "See"}\n'
    write(
        inbox,
        may__jsonl__gz=reviews,
        meta_may__jsonl=texts,
        june__csv=b"user_id,item_id,timestamp\nV,A,1\n",
    )
    write(inbox, june__csv=f"user_id,item_id,timestamp\nV,A,{12_000 * DAY}\n".encode())
    results = import_all(inbox, raw)
    assert {result.status for result in results.values()} == {"accepted"}
    assert (
        results["may.jsonl.gz"].lines
        == results["meta_may.jsonl"].lines
        == results["june.csv"].lines
        == 1
    )
    for name, start, end in (
        ("may.jsonl.gz", "shop.", ".jsonl.gz"),
        ("meta_may.jsonl", "meta_shop.", ".jsonl"),
        ("june.csv", "shop.", ".csv"),
    ):
        result = results[name]
        assert result.target == f"{start}{result.digest[:16]}{end}"
        assert (raw / result.target).read_bytes() == (inbox.folder / "done" / name).read_bytes()
    assert inbox.files() == []
    counts = ingest(raw, raw.parent / "out", CONFIG, rejects_file=raw.parent / "rejects")
    assert counts["interactions"] == 4
    assert counts["items_without_metadata"] == 2
    assert not list(raw.parent.glob(".*"))


def test_known_content_changes_nothing_and_is_reported(inbox: FolderInbox, raw: Path) -> None:
    write(inbox, may__jsonl=lines("U", "C"), first__jsonl=lines("U", "A", "B"))
    once = import_all(inbox, raw)
    assert once["first.jsonl"].status == "known"
    assert once["first.jsonl"].target == "shop.jsonl", "the dataset's first file counts as known"
    before = contents(raw)
    write(inbox, again__jsonl=lines("U", "C"))
    again = import_all(inbox, raw)["again.jsonl"]
    assert (again.status, again.target) == ("known", once["may.jsonl"].target)
    assert contents(raw) == before
    assert set(contents(inbox.folder / "done")) == {"may.jsonl", "first.jsonl", "again.jsonl"}


GOOD = lines("U", "C")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("may.jsonl", GOOD + b"broken\n{}\n", "2 of 3 lines of may.jsonl are malformed (66.7%; allowed 25.0%)"),
        ("may.jsonl", b"broken\n", "1 of 1 lines of may.jsonl are malformed (100.0%; allowed 25.0%), all as"),
        ("may.jsonl", b"\n\n", "may.jsonl holds no line of data"),
        ("may.jsonl.gz", gzipped(GOOD * 99)[:-20], "may.jsonl.gz breaks off"),
        ("may.jsonl.gz", GOOD, "may.jsonl.gz breaks off"),
        ("may.csv", b"who,what\nU,A\n", "has no column 'user_id'"),
        ("may.parquet", b"PAR1", "may.parquet has an unknown format"),
        ("may_csv", GOOD, "may_csv has an unknown format"),
        ("may.csv", b"PAR1", "may.csv is Parquet"),
        ("meta_may.csv", b"a\n", "meta_may.csv, line 1: the header ['a'] has no column 'parent_asin'"),
        ("meta_may.jsonl", GOOD + b"{}\n", "1 of 2 lines of meta_may.jsonl are malformed (50.0%; allowed 25.0%)"),
        ("may.train.csv", b"user_id,item_id,timestamp\n", "a ready split"),
    ],
)  # fmt: skip
def test_an_invalid_file_is_rejected_with_a_reason(
    inbox: FolderInbox, raw: Path, name: str, content: bytes, message: str
) -> None:
    before = contents(raw)
    write(inbox, **{name: content})
    result = import_all(inbox, raw)[name]
    assert (result.status, result.target) == ("rejected", None)
    files = contents(inbox.folder)
    assert set(files) == {f"rejected/{name}", f"rejected/{name}.reason.txt"}
    assert files[f"rejected/{name}"] == content
    reason = files[f"rejected/{name}.reason.txt"].decode()
    assert message in reason
    assert "partial" not in reason, "the reason has the original file name"
    assert contents(raw) == before


def test_a_file_with_few_malformed_lines_is_accepted(inbox: FolderInbox, raw: Path) -> None:
    write(inbox, may__jsonl=lines("U", "C", "D", "E") + b"broken\n")
    result = import_all(inbox, raw)["may.jsonl"]
    assert (result.status, result.lines, result.rejects) == ("accepted", 4, 1)
    ingest(raw, raw.parent / "out", CONFIG, rejects_file=raw.parent / "rejects")
    rejects = pd.read_parquet(raw.parent / "out" / "rejects.parquet")
    assert rejects[["file", "line", "reason"]].to_numpy().tolist() == [
        [result.target, 4, "broken JSON"]
    ]


def test_nothing_is_imported_into_a_ready_split(inbox: FolderInbox, raw: Path) -> None:
    (raw / "shop.jsonl").unlink()
    (raw / "shop.train.csv").write_text("user_id,item_id,timestamp\n")
    write(inbox, may__jsonl=GOOD)
    assert "a ready split" in str(import_all(inbox, raw)["may.jsonl"].reason)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_order_of_arrival_does_not_matter(
    inbox: FolderInbox, raw: Path, order: tuple[int, ...]
) -> None:
    """A purchase that occurs in two files counts once."""
    files = [
        lines("U", "C", "A", day=12_005),
        lines("V", "B", "A", day=11_000) + lines("U", "C", "A", day=12_005),
        lines("V", "C", "A", day=11_050),
    ]
    for number in order:
        write(inbox, new__jsonl=files[number])
        import_all(inbox, raw)
    ingest(raw, raw.parent / "out", CONFIG, rejects_file=raw.parent / "rejects")
    frame = Interactions.load(raw.parent / "out").rows.to_pandas()
    frame = frame.sort_values(["user_id", "position"])
    histories = {str(user): list(items) for user, items in frame.groupby("user_id")["item_id"]}
    assert histories == {"U": ["A", "B", "C"], "V": ["B", "A", "C"]}
    single = raw.parent / "single"
    single.mkdir()
    (single / "shop.jsonl").write_bytes(b"".join([(raw / "shop.jsonl").read_bytes(), *files]))
    ingest(single, raw.parent / "out_single", CONFIG, rejects_file=raw.parent / "rejects")
    expected = Interactions.load(raw.parent / "out_single").rows.to_pandas()
    columns = ["user_id", "item_id", "timestamp", "position"]
    expected = expected.sort_values(["user_id", "position"])
    pd.testing.assert_frame_equal(
        frame[columns].reset_index(drop=True), expected[columns].reset_index(drop=True)
    )


def test_imported_metadata_replaces_the_texts_of_an_item(inbox: FolderInbox, raw: Path) -> None:
    (raw / "meta_shop.jsonl").write_bytes(b'{"parent_asin": "A", "title": "Old"}\n')
    write(inbox, meta_new__jsonl=b'{"parent_asin": "A", "title": "New"}\n')
    import_all(inbox, raw)
    ingest(raw, raw.parent / "out", CONFIG, rejects_file=raw.parent / "rejects")
    items = pd.read_parquet(raw.parent / "out" / "items.parquet")
    assert items["title"].tolist() == ["New"]


def test_a_rerun_after_a_kill_at_any_step_gives_the_same_files(
    inbox: FolderInbox, raw: Path, tmp_path: Path
) -> None:
    """For n = 1, 2, ...: a child process is killed at its n-th disk change and another one runs to the end."""
    write(
        inbox,
        good__jsonl__gz=gzipped(GOOD),
        bad__jsonl=b"broken\n",
        known__jsonl=lines("U", "A", "B"),
    )
    start = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}_start"))
    import_all(inbox, raw)
    expected = contents(tmp_path)
    command = [sys.executable, "-m", "tests.arrivals.killed", str(start)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    folders = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(folders) > 12, "too few steps were killed"
    for kills, folder in enumerate(folders, start=1):
        assert contents(Path(folder)) == expected, f"killed at step {kills}"


def test_files_are_imported_from_s3(s3: Any, raw: Path) -> None:
    for key, body in {"may.jsonl.gz": gzipped(GOOD), "bad.jsonl": b"broken\n"}.items():
        s3.put_object(Bucket="bucket", Key=f"in/{key}", Body=body)
    with closing(S3Remote()) as remote:
        inbox = S3Inbox("s3://bucket/in", remote)
        first = import_files(inbox, inbox.files(), raw, CONFIG)
        again = import_files(inbox, inbox.files(), raw, CONFIG)  # as after a kill before `archive`
        archive_imported(inbox, again, raw)
        archive_imported(inbox, again, raw)
    assert [result.status for result in first] == ["rejected", "accepted"]
    assert [result.status for result in again] == ["known"]
    assert (raw / str(again[0].target)).read_bytes() == gzipped(GOOD)
    keys = {entry["Key"] for entry in s3.list_objects_v2(Bucket="bucket")["Contents"]}
    assert keys == {
        "in/done/may.jsonl.gz",
        "in/rejected/bad.jsonl",
        "in/rejected/bad.jsonl.reason.txt",
    }
