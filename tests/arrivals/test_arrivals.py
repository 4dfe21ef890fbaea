"""Files out of an inbox: taken once, refused with a reason, and whole whatever is killed when."""

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

from llmsrec.arrivals.arrivals import Arrival, clear, take
from llmsrec.arrivals.inbox import FolderInbox, Inbox, S3Inbox
from llmsrec.parsing.ingest import InteractionsConfig, ingest
from llmsrec.relational.interactions import Interactions
from llmsrec.sources.remote import S3Remote

DAY = 86_400_000
CONFIG = InteractionsConfig(date(1995, 7, 16), date(2035, 1, 1), 0.25, 0)


def lines(user: str, *items: str, day: int = 12_000) -> bytes:
    rows = [
        {"user_id": user, "parent_asin": item, "timestamp": (day + place) * DAY}
        for place, item in enumerate(items)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def packed(content: bytes) -> bytes:
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


def drop(inbox: FolderInbox, **files: bytes) -> None:
    for name, content in files.items():
        (inbox.folder / name.replace("__", ".")).write_bytes(content)


def arrive(inbox: Inbox, raw: Path) -> dict[str, Arrival]:
    taken = take(inbox, inbox.files(), raw, CONFIG)
    clear(inbox, taken, raw)
    return {arrival.file.name: arrival for arrival in taken}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_files_come_in_under_the_hash_of_their_content(inbox: FolderInbox, raw: Path) -> None:
    reviews, texts = packed(lines("U", "C")), b'{"parent_asin": "C", "title": "See"}\n'
    drop(
        inbox,
        may__jsonl__gz=reviews,
        meta_may__jsonl=texts,
        june__csv=b"user_id,item_id,timestamp\nV,A,1\n",
    )
    drop(inbox, june__csv=f"user_id,item_id,timestamp\nV,A,{12_000 * DAY}\n".encode())
    found = arrive(inbox, raw)
    assert {arrival.status for arrival in found.values()} == {"accepted"}
    assert (
        found["may.jsonl.gz"].lines == found["meta_may.jsonl"].lines == found["june.csv"].lines == 1
    )
    for name, start, end in (
        ("may.jsonl.gz", "shop.", ".jsonl.gz"),
        ("meta_may.jsonl", "meta_shop.", ".jsonl"),
        ("june.csv", "shop.", ".csv"),
    ):
        arrival = found[name]
        assert arrival.target == f"{start}{arrival.digest[:16]}{end}"
        assert (raw / arrival.target).read_bytes() == (inbox.folder / "done" / name).read_bytes()
    assert inbox.files() == []
    counts = ingest(raw, raw.parent / "out", CONFIG, rejects_kept=raw.parent / "kept")
    assert counts["interactions"] == 4
    assert counts["items_without_metadata"] == 2
    assert not list(raw.parent.glob(".*"))


def test_the_same_content_twice_changes_nothing_and_says_so(inbox: FolderInbox, raw: Path) -> None:
    drop(inbox, may__jsonl=lines("U", "C"), first__jsonl=lines("U", "A", "B"))
    once = arrive(inbox, raw)
    assert once["first.jsonl"].status == "known"
    assert once["first.jsonl"].target == "shop.jsonl", "the dataset's first file is known too"
    before = contents(raw)
    drop(inbox, again__jsonl=lines("U", "C"))
    again = arrive(inbox, raw)["again.jsonl"]
    assert (again.status, again.target) == ("known", once["may.jsonl"].target)
    assert contents(raw) == before
    assert set(contents(inbox.folder / "done")) == {"may.jsonl", "first.jsonl", "again.jsonl"}


GOOD = lines("U", "C")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("may.jsonl", GOOD + b"broken\n{}\n", "2 of 3 lines of may.jsonl are broken (66.7%; allowed 25.0%)"),
        ("may.jsonl", b"broken\n", "may.jsonl line 1: broken JSON"),
        ("may.jsonl", b"\n\n", "may.jsonl holds no line"),
        ("may.jsonl.gz", packed(GOOD * 99)[:-20], "may.jsonl.gz breaks off"),
        ("may.jsonl.gz", GOOD, "may.jsonl.gz breaks off"),
        ("may.csv", b"who,what\nU,A\n", "has no column 'user_id'"),
        ("may.parquet", b"PAR1", "may.parquet is of no known kind"),
        ("may_csv", GOOD, "may_csv is of no known kind"),
        ("meta_may.csv", b"a\n", "meta_may.csv is of no known kind"),
        ("meta_may.jsonl", b"{}\n", "meta_may.jsonl line 1: missing parent_asin"),
        ("may.train.csv", b"user_id,item_id,timestamp\n", "a ready split"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_rejected_with_its_reason(
    inbox: FolderInbox, raw: Path, name: str, content: bytes, said: str
) -> None:
    before = contents(raw)
    drop(inbox, **{name: content})
    arrival = arrive(inbox, raw)[name]
    assert (arrival.status, arrival.target) == ("rejected", None)
    left = contents(inbox.folder)
    assert set(left) == {f"rejected/{name}", f"rejected/{name}.reason.txt"}
    assert left[f"rejected/{name}"] == content
    reason = left[f"rejected/{name}.reason.txt"].decode()
    assert said in reason
    assert "partial" not in reason, "it names the file as it was dropped"
    assert contents(raw) == before


def test_few_broken_lines_come_in_and_keep_file_line_and_reason(
    inbox: FolderInbox, raw: Path
) -> None:
    drop(inbox, may__jsonl=lines("U", "C", "D", "E") + b"broken\n")
    arrival = arrive(inbox, raw)["may.jsonl"]
    assert (arrival.status, arrival.lines, arrival.rejects) == ("accepted", 4, 1)
    ingest(raw, raw.parent / "out", CONFIG, rejects_kept=raw.parent / "kept")
    rejects = pd.read_parquet(raw.parent / "out" / "rejects.parquet")
    assert rejects[["file", "line", "reason"]].to_numpy().tolist() == [
        [arrival.target, 4, "broken JSON"]
    ]


def test_a_dataset_of_a_ready_split_takes_nothing(inbox: FolderInbox, raw: Path) -> None:
    (raw / "shop.jsonl").unlink()
    (raw / "shop.train.csv").write_text("user_id,item_id,timestamp\n")
    drop(inbox, may__jsonl=GOOD)
    assert "a ready split" in str(arrive(inbox, raw)["may.jsonl"].reason)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_order_of_arrival_changes_nothing(
    inbox: FolderInbox, raw: Path, order: tuple[int, ...]
) -> None:
    """Nor do purchases told in two files count twice."""
    files = [
        lines("U", "C", "A", day=12_005),
        lines("V", "B", "A", day=11_000) + lines("U", "C", "A", day=12_005),
        lines("V", "C", "A", day=11_050),
    ]
    for number in order:
        drop(inbox, new__jsonl=files[number])
        arrive(inbox, raw)
    ingest(raw, raw.parent / "out", CONFIG, rejects_kept=raw.parent / "kept")
    frame = Interactions.load(raw.parent / "out").rows.to_pandas()
    frame = frame.sort_values(["user_id", "position"])
    found = {str(user): list(items) for user, items in frame.groupby("user_id")["item_id"]}
    assert found == {"U": ["A", "B", "C"], "V": ["B", "A", "C"]}
    one = raw.parent / "one"
    one.mkdir()
    (one / "shop.jsonl").write_bytes(b"".join([(raw / "shop.jsonl").read_bytes(), *files]))
    ingest(one, raw.parent / "out_one", CONFIG, rejects_kept=raw.parent / "kept")
    whole = Interactions.load(raw.parent / "out_one").rows.to_pandas()
    kept = ["user_id", "item_id", "timestamp", "position"]
    whole = whole.sort_values(["user_id", "position"])
    pd.testing.assert_frame_equal(
        frame[kept].reset_index(drop=True), whole[kept].reset_index(drop=True)
    )


def test_what_arrives_corrects_the_texts_of_an_item(inbox: FolderInbox, raw: Path) -> None:
    (raw / "meta_shop.jsonl").write_bytes(b'{"parent_asin": "A", "title": "Old"}\n')
    drop(inbox, meta_new__jsonl=b'{"parent_asin": "A", "title": "New"}\n')
    arrive(inbox, raw)
    ingest(raw, raw.parent / "out", CONFIG, rejects_kept=raw.parent / "kept")
    items = pd.read_parquet(raw.parent / "out" / "items.parquet")
    assert items["title"].tolist() == ["New"]


def test_after_a_kill_at_any_step_a_rerun_leads_to_the_same_files(
    inbox: FolderInbox, raw: Path, tmp_path: Path
) -> None:
    """A child is killed at its first, second, ... change of the disk, until one is not; a second one follows each."""
    drop(
        inbox,
        good__jsonl__gz=packed(GOOD),
        bad__jsonl=b"broken\n",
        known__jsonl=lines("U", "A", "B"),
    )
    start = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}_start"))
    arrive(inbox, raw)
    expected = contents(tmp_path)
    command = [sys.executable, "-m", "tests.arrivals.killed", str(start)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(ends) > 12, "few steps were killed"
    for kills, folder in enumerate(ends, start=1):
        assert contents(Path(folder)) == expected, f"killed at step {kills}"


def test_a_bucket_is_taken_from_as_a_folder_is(s3: Any, raw: Path) -> None:
    for key, body in {"may.jsonl.gz": packed(GOOD), "bad.jsonl": b"broken\n"}.items():
        s3.put_object(Bucket="bucket", Key=f"in/{key}", Body=body)
    with closing(S3Remote()) as remote:
        inbox = S3Inbox("s3://bucket/in", remote)
        taken = take(inbox, inbox.files(), raw, CONFIG)
        again = take(inbox, inbox.files(), raw, CONFIG)  # killed before `clear`
        clear(inbox, again, raw)
        clear(inbox, again, raw)
    assert [arrival.status for arrival in taken] == ["rejected", "accepted"]
    assert [arrival.status for arrival in again] == ["known"]
    assert (raw / str(again[0].target)).read_bytes() == packed(GOOD)
    held = {found["Key"] for found in s3.list_objects_v2(Bucket="bucket")["Contents"]}
    assert held == {
        "in/done/may.jsonl.gz",
        "in/rejected/bad.jsonl",
        "in/rejected/bad.jsonl.reason.txt",
    }
