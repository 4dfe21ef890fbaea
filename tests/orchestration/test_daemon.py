"""A real daemon on the small project: a file dropped into an inbox is taken in."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from orchestration.dvc_project import DvcProject
from tests.orchestration.daemon import CHECKOUT, daemon
from tests.orchestration.small_project import QUIET, environment
from tests.orchestration.test_processes import SECONDS, wait_for

pytestmark = QUIET

DEFINITIONS = """
from pathlib import Path
from orchestration.definitions import build
defs = build(Path(__file__).parent)
"""


@pytest.fixture
def watched(project: Path, tmp_path: Path) -> Iterator[Path]:
    """The daemon runs, with the instance's own settings, until the test ends."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    real = yaml.safe_load((CHECKOUT / "params.yaml").read_text())
    params["interactions"] = real["interactions"]
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    operations = {
        "inbox": {"north": {"source": "inbox/north", "settled_seconds": 0, "push": False}},
        "schedules": {"north": {"cron": "0 3 * * *", "timezone": "UTC", "min_new_interactions": 9}},
    }
    (project / "operations.yaml").write_text(yaml.safe_dump(operations))
    (project / "definitions.py").write_text(DEFINITIONS)
    paths = os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
    env = environment(DAGSTER_HOME=str(tmp_path / "home"), PYTHONPATH=paths)
    with daemon(project, env, tmp_path / "daemon.log", "-f", "definitions.py"):
        yield project


@pytest.mark.slow
def test_a_dropped_file_is_taken_in_by_one_run(watched: Path, tmp_path: Path) -> None:
    inbox = watched / "inbox/north"
    inbox.mkdir(parents=True)
    review = {"user_id": "U", "parent_asin": "A", "timestamp": 10**12}
    (inbox / ".may").write_text(json.dumps(review) + "\n")
    os.replace(inbox / ".may", inbox / "may.jsonl")
    try:
        wait_for(inbox / "done/may.jsonl")
        (run,) = finished(tmp_path / "home")
    except AssertionError as error:
        raise AssertionError((tmp_path / "daemon.log").read_text()) from error
    assert (run.job_name, run.status.value) == ("take_arrivals", "SUCCESS")
    assert run.tags["dagster/partition"] == "north"
    assert run.tags["dagster/sensor_name"] == "inbox"
    assert catalogued(tmp_path / "home", "counts", "south"), "what dvc repro built before"
    (arrived,) = (watched / "data/north").glob("north.*.jsonl")
    assert DvcProject(watched).tracked_hash(f"data/north/{arrived.name}") is not None


def finished(home: Path) -> list[dg.DagsterRun]:
    """All runs, once there are some and none goes on."""
    deadline = time.monotonic() + SECONDS
    with dg.DagsterInstance.from_config(str(home)) as instance:
        while not (runs := list(instance.get_runs())) or not all(run.is_finished for run in runs):
            assert time.monotonic() < deadline, "the run never ended"
            time.sleep(0.2)
    return runs


def catalogued(home: Path, name: str, partition: str) -> int:
    wanted = dg.AssetRecordsFilter(dg.AssetKey(name), asset_partitions=[partition])
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return len(instance.fetch_materializations(wanted, limit=9).records)
