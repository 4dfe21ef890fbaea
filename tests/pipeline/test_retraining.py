"""From a file in the inbox to a promoted model that answers over HTTP, with nothing but Dagster's daemon running."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import httpx
import pytest
import yaml

from benchmarks.serving import served
from reliability.project import STAGES, environment, python, write_project
from tests.conftest import DAY
from tests.orchestration.daemon import daemon
from tests.pipeline.test_pipeline import DATASET, raw

__all__ = ["raw"]  # a fixture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader"),  # MLflow with SQLAlchemy
]
SECONDS = 800  # the machine may be busy


@pytest.fixture
def watched(raw: Path, tmp_path: Path) -> Iterator[Path]:
    """A project whose raw files are there but whose models are not, and a daemon that may train every minute."""
    root = write_project(tmp_path / "project", DATASET, str(raw))
    operations = yaml.safe_load((root / "operations.yaml").read_text())
    operations["inbox"] = {DATASET: {"source": "inbox", "settled_seconds": 0, "push": False}}
    operations["schedules"] = {
        DATASET: {"cron": "* * * * *", "timezone": "UTC", "min_new_interactions": 400}
    }
    operations["promotion"]["gates"] = "none"  # a model of this size has no sense of order
    (root / "operations.yaml").write_text(yaml.safe_dump(operations, sort_keys=False))
    python(root, "llmsrec.stages.download", "--dataset", DATASET, "--out", f"data/{DATASET}")
    python(root, "dvc", "add", "data")
    env = environment(root) | {"PYTHONPATH": str(root)}
    with daemon(root, env, tmp_path / "daemon.log", "-m", "orchestration.definitions"):
        yield root


def test_a_file_in_the_inbox_becomes_a_model_that_answers(
    watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The raw files alone are too few lines for a training; with those that arrive it is worth one."""
    inbox, told = watched / "inbox", watched / "reports" / DATASET / "promotion.json"
    inbox.mkdir()
    buys = [
        {"user_id": f"N{user}", "parent_asin": f"I{(user + n) % 30:03d}", "timestamp": (19_000 + n) * DAY}
        for user in range(20) for n in range(8)
    ]  # fmt: skip
    (inbox / ".new").write_text("\n".join(json.dumps(row) for row in buys) + "\n")
    os.replace(inbox / ".new", inbox / "new.jsonl")
    try:
        wait_for(told)
        runs = finished(watched)
    except AssertionError as error:
        raise AssertionError((watched.parent / "daemon.log").read_text()[-8000:]) from error

    assert {run.job_name for run in runs} == {"take_arrivals", "retrain"}
    assert all(run.status == dg.DagsterRunStatus.SUCCESS for run in runs)
    (training,) = [run for run in runs if run.job_name == "retrain"]
    assert training.tags["dagster/schedule_name"] == f"retrain_{DATASET}"
    assert "0 built, 400 new ones needed" in training.tags["why"]
    report = json.loads((watched / "reports" / DATASET / "interactions.json").read_text())
    assert len(report["reviews"]["files"]) == 2
    assert json.loads(told.read_text())["outcome"] == "promoted"
    locked = yaml.safe_load((watched / "dvc.lock").read_text())["stages"]
    assert {f"{stage}@{DATASET}" for stage in STAGES} <= set(locked)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{watched / 'mlflow.db'}")
    monkeypatch.chdir(watched)
    shopper = {"history": ["I003", "I004", "I005"]}
    with served(f"models:/llmsrec-{DATASET}@champion") as url:
        document = {"dataframe_records": [shopper], "params": {"k": 3}}
        (answer,) = httpx.post(f"{url}/invocations", json=document, timeout=60).json()[
            "predictions"
        ]
    history = ",".join(shopper["history"])
    typed = json.loads(
        python(watched, "llmsrec.cli", "recommend", "--dataset", DATASET, "--history", history, "-k", "3", "--json")
    )  # fmt: skip
    assert answer["source"] == typed["source"] == "recommender"
    assert answer["items"] == [item["item_id"] for item in typed["items"]]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.5)


def finished(root: Path) -> list[dg.DagsterRun]:
    """All runs, once none goes on."""
    deadline = time.monotonic() + SECONDS
    with dg.DagsterInstance.from_config(environment(root)["DAGSTER_HOME"]) as instance:
        while True:
            runs = list(instance.get_runs())
            if all(run.is_finished for run in runs):
                return runs
            assert time.monotonic() < deadline, "a run never ended"
            time.sleep(0.5)
