"""Faults of S3 (500, 503, no response, a lost or truncated one) are retried: by fetch, upload and inbox."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from botocore.retries.standard import ExponentialBackoff

from llmsrec.arrivals.inbox import DONE, S3Inbox
from llmsrec.core.errors import SourceError
from llmsrec.core.files import sha256
from llmsrec.sources import remote
from llmsrec.sources.download import fetch
from llmsrec.sources.s3 import S3Remote, upload
from reliability.proxy import NO_RESPONSE, RESPONSE_LOST, TRUNCATED, faulty_proxy

TROUBLES = [500, 503, NO_RESPONSE, RESPONSE_LOST, TRUNCATED]
BODY = b'{"user_id": "U"}\n' * 1000


class Trouble:
    """The faults of the next requests; `always` applies to every request."""

    def __init__(self) -> None:
        self.faults: list[int] = []
        self.always: int | None = None
        self.count = 0

    def next(self) -> int | None:
        fault = (
            self.always if self.always is not None else self.faults.pop(0) if self.faults else None
        )
        self.count += fault is not None
        return fault


@pytest.fixture
def trouble(
    s3: Any, endpoint: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Trouble]:
    """The code under test connects through a faulty proxy; the client of the test connects directly."""
    trouble = Trouble()
    monkeypatch.setattr(remote, "RETRY_PAUSE", 0.001)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)
    with faulty_proxy(endpoint, trouble.next) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield trouble


@pytest.mark.parametrize("fault", TROUBLES)
def test_fetch_succeeds(trouble: Trouble, s3: Any, tmp_path: Path, fault: int) -> None:
    s3.put_object(Bucket="bucket", Key="raw/store.jsonl", Body=BODY)
    trouble.faults = [fault, fault]
    fetch("store", "s3://bucket/raw", tmp_path / "data")
    assert (tmp_path / "data/store.jsonl").read_bytes() == BODY
    assert trouble.count == 2


@pytest.mark.parametrize("fault", TROUBLES)
def test_upload_succeeds(trouble: Trouble, s3: Any, tmp_path: Path, fault: int) -> None:
    (tmp_path / "items.parquet").write_bytes(BODY)
    trouble.faults = [fault, fault]
    upload([tmp_path / "items.parquet"], "s3://bucket/vectors")
    assert s3.get_object(Bucket="bucket", Key="vectors/items.parquet")["Body"].read() == BODY
    assert trouble.count == 2


@pytest.mark.parametrize("fault", TROUBLES)
def test_an_inbox_succeeds(trouble: Trouble, s3: Any, tmp_path: Path, fault: int) -> None:
    """With a fault at each of list, read and move."""
    s3.put_object(Bucket="bucket", Key="in/new.jsonl", Body=BODY)
    with closing(S3Remote()) as bucket:
        inbox = S3Inbox("s3://bucket/in", bucket)
        trouble.faults = [fault]
        (file,) = inbox.files()
        trouble.faults = [fault]
        assert inbox.fetch(file, tmp_path / "new.jsonl")
        trouble.faults = [fault]
        inbox.move_to(file, sha256(tmp_path / "new.jsonl"), DONE)
        assert inbox.files() == []
    assert (tmp_path / "new.jsonl").read_bytes() == BODY
    assert s3.get_object(Bucket="bucket", Key="in/done/new.jsonl")["Body"].read() == BODY
    assert trouble.count == 3


@pytest.mark.parametrize("fault", [503, NO_RESPONSE])
def test_a_bucket_that_fails_persistently_is_named(
    trouble: Trouble, s3: Any, tmp_path: Path, fault: int
) -> None:
    (tmp_path / "items.parquet").write_bytes(BODY)
    trouble.always = fault
    with pytest.raises(SourceError, match=r"s3://bucket/vectors/items\.parquet"):
        upload([tmp_path / "items.parquet"], "s3://bucket/vectors")
    trouble.always = None
    assert "Contents" not in s3.list_objects_v2(Bucket="bucket")
