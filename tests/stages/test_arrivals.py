"""The stage that takes arrivals: look, take and clear as Dagster calls them, against a bucket."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmsrec.core.errors import ConfigError
from llmsrec.sources import download
from llmsrec.stages.arrivals import main

INBOX = {"source": "s3://bucket/in", "settled_seconds": 0, "push": False}


@pytest.fixture
def here(params: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose dataset `shop` has a bucket as its inbox; `idle` has an entry and none."""
    idle = {**INBOX, "source": None}
    folder = params(inbox={"shop": INBOX, "sample": idle, "idle": idle}).parent
    monkeypatch.chdir(folder)
    return folder


def looked(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    main(["look"])
    return json.loads(capsys.readouterr().out)


def test_a_bucket_is_emptied_in_two_steps(
    s3: Any, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = json.dumps({"user_id": "U", "parent_asin": "A", "timestamp": 10**12})
    s3.put_object(Bucket="bucket", Key="in/may.jsonl", Body=line.encode())
    found = looked(capsys)
    assert [file["name"] for file in found["shop"]["ready"]] == ["may.jsonl"]
    assert found["idle"] == {"ready": [], "waiting": []}
    arguments = ["--dataset", "shop", "--report", "scratch/shop/arrivals.json"]
    main(["take", *arguments])
    (file,) = (here / "data/shop").iterdir()
    assert f"accepted may.jsonl: {file.name}, 1 lines" in capsys.readouterr().out
    assert looked(capsys)["shop"]["ready"] == found["shop"]["ready"], "DVC comes before `clear`"
    main(["clear", *arguments])
    assert looked(capsys)["shop"]["ready"] == []


def test_an_inbox_that_cannot_be_read_does_not_hide_the_others(
    s3: Any, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = looked(capsys)
    assert "no AWS credentials; set AWS_ACCESS_KEY_ID" in found["shop"]["error"]
    assert found["idle"] == {"ready": [], "waiting": []}


@pytest.mark.parametrize("dataset", ["idle", "nowhere"])
def test_a_dataset_without_an_inbox_is_named(here: Path, dataset: str) -> None:
    with pytest.raises(ConfigError, match=f"inbox has no source for '{dataset}'"):
        main(["take", "--dataset", dataset, "--report", "report.json"])
