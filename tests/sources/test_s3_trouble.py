"""A store in trouble (500, 503, no answer, a lost or cut one) is asked again: fetching, sending, inbox come through."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from botocore.retries.standard import ExponentialBackoff

from llmsrec.arrivals.inbox import DONE, S3Inbox
from llmsrec.core.errors import SourceError
from llmsrec.core.files import sha256
from llmsrec.sources import download
from llmsrec.sources.download import fetch, upload
from llmsrec.sources.remote import S3Remote
from reliability.proxy import NO_RESPONSE, RESPONSE_LOST, TRUNCATED, faulty_proxy

TROUBLES = [500, 503, NO_RESPONSE, RESPONSE_LOST, TRUNCATED]
BODY = b'{"user_id": "U"}\n' * 1000


class Trouble:
    """What the next requests are answered instead of being passed on; `always` is kept."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.always: int | None = None
        self.met = 0

    def next(self) -> int | None:
        answer = (
            self.always
            if self.always is not None
            else self.answers.pop(0)
            if self.answers
            else None
        )
        self.met += answer is not None
        return answer


@pytest.fixture
def trouble(
    s3: Any, endpoint: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Trouble]:
    """Ours talks to a proxy before the store; the test's own client talks to the store itself."""
    found = Trouble()
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)
    with faulty_proxy(endpoint, found.next) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield found


@pytest.mark.parametrize("answer", TROUBLES)
def test_raw_files_come_through(trouble: Trouble, s3: Any, tmp_path: Path, answer: int) -> None:
    s3.put_object(Bucket="bucket", Key="raw/store.jsonl", Body=BODY)
    trouble.answers = [answer, answer]
    fetch("store", "s3://bucket/raw", tmp_path / "data")
    assert (tmp_path / "data/store.jsonl").read_bytes() == BODY
    assert trouble.met == 2


@pytest.mark.parametrize("answer", TROUBLES)
def test_an_export_comes_through(trouble: Trouble, s3: Any, tmp_path: Path, answer: int) -> None:
    (tmp_path / "items.parquet").write_bytes(BODY)
    trouble.answers = [answer, answer]
    upload([tmp_path / "items.parquet"], "s3://bucket/vectors")
    assert s3.get_object(Bucket="bucket", Key="vectors/items.parquet")["Body"].read() == BODY
    assert trouble.met == 2


@pytest.mark.parametrize("answer", TROUBLES)
def test_an_inbox_comes_through(trouble: Trouble, s3: Any, tmp_path: Path, answer: int) -> None:
    """Trouble before each of: list, read, and put away."""
    s3.put_object(Bucket="bucket", Key="in/new.jsonl", Body=BODY)
    with closing(S3Remote()) as remote:
        inbox = S3Inbox("s3://bucket/in", remote)
        trouble.answers = [answer]
        (file,) = inbox.files()
        trouble.answers = [answer]
        assert inbox.fetch(file, tmp_path / "new.jsonl")
        trouble.answers = [answer]
        inbox.put_away(file, sha256(tmp_path / "new.jsonl"), DONE)
        assert inbox.files() == []
    assert (tmp_path / "new.jsonl").read_bytes() == BODY
    assert s3.get_object(Bucket="bucket", Key="in/done/new.jsonl")["Body"].read() == BODY
    assert trouble.met == 3


@pytest.mark.parametrize("answer", [503, NO_RESPONSE])
def test_a_store_that_stays_in_trouble_is_given_up_with_its_name(
    trouble: Trouble, s3: Any, tmp_path: Path, answer: int
) -> None:
    (tmp_path / "items.parquet").write_bytes(BODY)
    trouble.always = answer
    with pytest.raises(SourceError, match=r"s3://bucket/vectors/items\.parquet"):
        upload([tmp_path / "items.parquet"], "s3://bucket/vectors")
    trouble.always = None
    assert "Contents" not in s3.list_objects_v2(Bucket="bucket")
