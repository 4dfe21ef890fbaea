"""The arrivals stage: check, import and archive as Dagster runs them, with an inbox on S3."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmsrec.core.errors import ConfigError
from llmsrec.sources import remote
from llmsrec.stages.arrivals import main

INBOX = {"source": "s3://bucket/in", "settled_seconds": 0, "push": False}


@pytest.fixture
def working_folder(params: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose dataset `shop` has an inbox on S3; the inbox of `idle` has no source."""
    idle = {**INBOX, "source": None}
    folder = params(inbox={"shop": INBOX, "sample": idle, "idle": idle}).parent
    monkeypatch.chdir(folder)
    return folder


def check(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    main(["check"])
    return json.loads(capsys.readouterr().out)


def test_import_and_archive_empty_an_inbox_in_two_steps(
    s3: Any, working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = json.dumps({"user_id": "U", "parent_asin": "A", "timestamp": 10**12})
    s3.put_object(Bucket="bucket", Key="in/may.jsonl", Body=line.encode())
    status = check(capsys)
    assert [file["name"] for file in status["shop"]["ready"]] == ["may.jsonl"]
    assert status["idle"] == {"ready": [], "waiting": []}
    arguments = ["--dataset", "shop", "--report", "scratch/shop/arrivals.json"]
    main(["import", *arguments])
    (file,) = (working_folder / "data/shop").iterdir()
    assert f"accepted may.jsonl: {file.name}, 1 lines" in capsys.readouterr().out
    assert check(capsys)["shop"]["ready"] == status["shop"]["ready"], (
        "files stay in the inbox until `archive`"
    )
    main(["archive", *arguments])
    assert check(capsys)["shop"]["ready"] == []


def test_an_unreadable_inbox_does_not_hide_the_others(
    s3: Any,
    working_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "RETRY_PAUSE", 0.0)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    status = check(capsys)
    assert "no AWS credentials; set AWS_ACCESS_KEY_ID" in status["shop"]["error"]
    assert status["idle"] == {"ready": [], "waiting": []}


@pytest.mark.parametrize("dataset", ["idle", "nowhere"])
def test_the_error_names_a_dataset_without_an_inbox(working_folder: Path, dataset: str) -> None:
    with pytest.raises(ConfigError, match=f"inbox has no source for '{dataset}'"):
        main(["import", "--dataset", dataset, "--report", "report.json"])
