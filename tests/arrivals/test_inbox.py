"""Listing, reading and moving the files of an inbox: a folder, and S3 over real HTTP."""

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmsrec.arrivals.inbox import (
    DONE,
    MARKER,
    REJECTED,
    FolderInbox,
    InboxFile,
    S3Inbox,
    ready_and_waiting,
)
from llmsrec.core.errors import SourceError
from llmsrec.core.files import sha256
from llmsrec.sources import remote
from llmsrec.sources.s3 import S3Remote


def inbox_file(name: str, changed: float) -> InboxFile:
    return InboxFile(name, 1, str(changed), changed)


def names(files: list[InboxFile]) -> list[str]:
    return [file.name for file in files]


def test_a_file_is_ready_when_it_has_not_changed_for_some_time() -> None:
    files = [inbox_file("old", 70.0), inbox_file("fresh", 95.0)]
    ready, waiting = ready_and_waiting(files, 30, 100.0)
    assert (names(ready), names(waiting)) == (["old"], ["fresh"])
    assert names(ready_and_waiting(files, 0, 100.0)[0]) == ["old", "fresh"]


def test_a_success_marker_makes_earlier_files_ready_and_no_later_ones() -> None:
    files = [inbox_file(MARKER, 97.0), inbox_file("before", 97.0), inbox_file("after", 98.0)]
    ready, waiting = ready_and_waiting(files, 30, 100.0)
    assert (names(ready), names(waiting)) == (["before"], ["after"])


@pytest.fixture
def inbox(tmp_path: Path) -> FolderInbox:
    return FolderInbox(tmp_path / "inbox")


def write(inbox: FolderInbox, name: str, content: str) -> InboxFile:
    (inbox.folder / name).write_text(content)
    return next(file for file in inbox.files() if file.name == name)


def test_only_visible_files_directly_in_the_folder_are_listed(inbox: FolderInbox) -> None:
    write(inbox, "b.jsonl", "b")
    write(inbox, "a.jsonl", "a")
    (inbox.folder / ".upload").touch()
    (inbox.folder / DONE).mkdir()
    (inbox.folder / DONE / "old.jsonl").touch()
    assert names(inbox.files()) == ["a.jsonl", "b.jsonl"]


def test_a_file_that_changed_since_it_was_listed_is_not_moved(
    inbox: FolderInbox, tmp_path: Path
) -> None:
    file = write(inbox, "a.jsonl", "first")
    (inbox.folder / "a.jsonl").write_text("another")
    assert not inbox.fetch(file, tmp_path / "copy")
    inbox.move_to(file, "0" * 64, DONE)
    assert (inbox.folder / "a.jsonl").read_text() == "another"


def test_two_files_of_the_same_name_are_both_moved(inbox: FolderInbox, tmp_path: Path) -> None:
    for content in ("first", "second", "second"):
        file = write(inbox, "a.jsonl", content)
        assert inbox.fetch(file, tmp_path / "copy")
        inbox.move_to(file, sha256(tmp_path / "copy"), REJECTED, f"{content} is bad")
    moved = {file.name: file.read_text() for file in (inbox.folder / REJECTED).iterdir()}
    second = f"{sha256(tmp_path / 'copy')[:16]}.a.jsonl"
    assert moved == {
        "a.jsonl": "first",
        "a.jsonl.reason.txt": "first is bad",
        second: "second",
        f"{second}.reason.txt": "second is bad",
    }


# --- S3 ---


def keys(s3: Any) -> dict[str, bytes]:
    return {
        entry["Key"]: s3.get_object(Bucket="bucket", Key=entry["Key"])["Body"].read()
        for entry in s3.list_objects_v2(Bucket="bucket").get("Contents", [])
    }


def test_an_inbox_on_s3_is_listed_read_and_moved(s3: Any, tmp_path: Path) -> None:
    for key, body in {
        "in/a.jsonl": b"a",
        "in/sub/b.jsonl": b"b",
        "in/": b"",
        "in2/c": b"c",
    }.items():
        s3.put_object(Bucket="bucket", Key=key, Body=body)
    with closing(S3Remote()) as client:
        inbox = S3Inbox("s3://bucket/in/", client)
        (file,) = inbox.files()
        assert (file.name, file.size) == ("a.jsonl", 1)
        assert abs(time.time() - file.changed) < 60
        assert inbox.fetch(file, tmp_path / "a.jsonl")
        assert (tmp_path / "a.jsonl").read_bytes() == b"a"
        inbox.move_to(file, sha256(tmp_path / "a.jsonl"), REJECTED, "it is bad")
        assert inbox.files() == []
        rejected = {key: body for key, body in keys(s3).items() if "rejected" in key}
        assert rejected == {
            "in/rejected/a.jsonl": b"a",
            "in/rejected/a.jsonl.reason.txt": b"it is bad",
        }
        s3.put_object(Bucket="bucket", Key="in/a.jsonl", Body=b"other")
        (file,) = inbox.files()
        assert inbox.fetch(file, tmp_path / "a.jsonl")
        digest = sha256(tmp_path / "a.jsonl")
        inbox.move_to(file, digest, REJECTED)
        assert keys(s3)[f"in/rejected/{digest[:16]}.a.jsonl"] == b"other"


def test_an_object_that_changed_since_it_was_listed_is_not_moved(s3: Any, tmp_path: Path) -> None:
    s3.put_object(Bucket="bucket", Key="in/a.jsonl", Body=b"a")
    with closing(S3Remote()) as client:
        inbox = S3Inbox("s3://bucket/in", client)
        (file,) = inbox.files()
        s3.put_object(Bucket="bucket", Key="in/a.jsonl", Body=b"other")
        assert not inbox.fetch(file, tmp_path / "a.jsonl")
        inbox.move_to(file, "0" * 64, DONE)
    assert keys(s3) == {"in/a.jsonl": b"other"}


def test_an_empty_prefix_has_no_files_and_a_missing_bucket_is_an_error(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "RETRY_PAUSE", 0.0)
    with closing(S3Remote()) as client:
        assert S3Inbox("s3://bucket/nothing", client).files() == []
        with pytest.raises(SourceError, match="s3://gone/here"):
            S3Inbox("s3://gone/here", client).files()
