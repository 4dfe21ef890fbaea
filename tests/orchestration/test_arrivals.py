"""The arrivals asset: DVC learns of what came in, the inbox is cleared last; the sensor asks once for a state."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration import arrivals as module
from orchestration.arrivals import arrivals_asset, inbox_sensor, ingest_arrivals
from orchestration.dvc_project import DvcProject
from tests.orchestration.small_project import QUIET, dvc, git
from tests.orchestration.test_dvc_assets import events, metadata, version

pytestmark = QUIET

# In the place of the real step: every .txt is accepted, every other file rejected; `broken` stops it.
ARRIVALS = """
import argparse, json, os, sys
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument("verb")
parser.add_argument("--dataset")
parser.add_argument("--report", type=Path)
args = parser.parse_args()
inbox, done = Path("inbox"), Path("inbox/done")
files = sorted(p for p in inbox.iterdir() if p.is_file())
if Path("broken").exists():
    sys.exit("error: the server is down: try again")
if args.verb == "check":
    listed = [{"name": p.name, "tag": p.read_text()} for p in files]
    settled = [row for row in listed if not row["tag"].endswith("...")]
    waiting = [row for row in listed if row not in settled]
    south = {"ready": [], "waiting": [], "error": "no keys"}
    print(json.dumps({"north": {"ready": settled, "waiting": waiting}, "south": south}))
elif args.verb == "import":
    rows = []
    for path in files:
        good = path.suffix == ".txt"
        target = f"more.{path.read_text()}.txt" if good else None
        known = good and (Path("data") / args.dataset / target).exists()
        if good:
            (Path("data") / args.dataset / target).write_text(path.read_text())
        else:
            path.unlink()
        status = "known" if known else "accepted" if good else "rejected"
        rows.append({"file": {"name": path.name}, "status": status, "target": target, "lines": 1,
                     "rejects": 0, "reason": None if good else "no | text\\nline 1"})
    args.report.parent.mkdir(parents=True, exist_ok=True)
    args.report.write_text(json.dumps(rows))
else:
    done.mkdir(exist_ok=True)
    for row in json.loads(args.report.read_text()):
        path = inbox / row["file"]["name"]
        if row["target"] and path.exists():
            os.replace(path, done / path.name)
"""


@pytest.fixture
def shop(root: Path) -> Path:
    step = root / "llmsrec" / "stages" / "arrivals.py"
    step.parent.mkdir(parents=True)
    step.write_text(ARRIVALS)
    for package in (step.parent, step.parent.parent):
        (package / "__init__.py").touch()
    (root / "inbox").mkdir()
    return root


def drop(root: Path, name: str, content: str) -> None:
    (root / "inbox" / name).write_text(content)


def take(root: Path, instance: dg.DagsterInstance, **inbox: Any) -> Any:
    inboxes = {"north": {"source": "inbox", "push": False, **inbox}}
    return dg.materialize(
        [arrivals_asset(DvcProject(root, external=("data",)), ["north", "south"], inboxes)],
        partition_key="north",
        instance=instance,
        raise_on_error=False,
    )


def ignore(_line: str) -> None:
    """For runs whose output does not matter."""


def test_imported_files_are_tracked_and_leave_the_inbox(
    shop: Path, instance: dg.DagsterInstance
) -> None:
    project = DvcProject(shop)
    (shop / "data/south/text.txt").write_text("changed by mistake")
    south = project.tracked_hash("data/south")
    drop(shop, "may.txt", "one")
    drop(shop, "june.doc", "two")
    result = take(shop, instance)
    shown = metadata(result, "arrivals")
    assert (shown["outcome"], shown["accepted"], shown["rejected"]) == ("ran", 1, 1)
    assert "| june.doc | rejected |  | 1 | 0 | no \\| text |" in shown["files"]
    assert project.tracked_hash("data/north/more.one.txt") is not None
    assert project.tracked_hash("data/south") == south
    assert version(result, "arrivals") == project.tracked_hash("data/north")
    assert sorted(p.name for p in (shop / "inbox").rglob("*")) == ["done", "may.txt"]

    tracked = (shop / "data.dvc").read_text()
    drop(shop, "again.txt", "one")
    again = metadata(take(shop, instance), "arrivals")
    assert (again["outcome"], again["known"]) == ("unchanged", 1)
    assert (shop / "data.dvc").read_text() == tracked


def test_a_dataset_without_an_inbox_is_unchanged(root: Path, instance: dg.DagsterInstance) -> None:
    assert metadata(take(root, instance, source=None), "arrivals")["outcome"] == "unchanged"


def test_a_failed_step_is_reported(shop: Path, instance: dg.DagsterInstance) -> None:
    (shop / "broken").touch()
    (failed,) = events(take(shop, instance), dg.DagsterEventType.STEP_FAILURE)
    failure = failed.step_failure_data.user_failure_data
    assert failure is not None
    assert failure.description == "arrivals@north failed\nerror: the server is down: try again"


def test_a_push_without_a_remote_fails_clearly_and_the_file_stays_in_the_inbox(
    shop: Path, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    drop(shop, "may.txt", "one")
    (failed,) = events(take(shop, instance, push=True), dg.DagsterEventType.STEP_FAILURE)
    failure = failed.step_failure_data.user_failure_data
    assert failure is not None
    assert "DVC has no remote: `dvc remote add --default" in str(failure.description)
    assert (shop / "inbox/may.txt").exists()

    dvc(shop, "remote", "add", "--default", "shelf", str(tmp_path / "shelf"))
    assert take(shop, instance, push=True).success
    assert not (shop / "inbox/may.txt").exists()
    git(shop, "add", "--all")
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(shop), str(other))
    for name in (".dvc/config", "data.dvc"):
        shutil.copyfile(shop / name, other / name)
    dvc(other, "pull", "--quiet", "data")
    assert (other / "data/north/more.one.txt").read_text() == "one"


STEPS = ("import", "add", "push", "archive")


@pytest.mark.parametrize("step", STEPS)
def test_after_a_kill_at_any_step_a_rerun_gives_the_same_result(
    shop: Path, tmp_path: Path, step: str
) -> None:
    dvc(shop, "remote", "add", "--default", "shelf", str(tmp_path / "shelf"))
    drop(shop, "may.txt", "one")
    child = os.fork()
    if not child:
        _killed_behind(shop, step)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    project = DvcProject(shop)
    assert (shop / "inbox/may.txt").exists() == (step != "archive")
    result, _ = ingest_arrivals(project, "north", True, ignore)
    assert result.outcome == ("ran" if step == "import" else "unchanged")
    assert project.tracked_hash("data/north/more.one.txt") is not None
    assert not project.is_stale("data.dvc")
    assert sorted(p.name for p in (shop / "data/north").iterdir()) == ["more.one.txt", "text.txt"]
    assert sorted(p.name for p in (shop / "inbox").rglob("*")) == ["done", "may.txt"]
    assert "up to date" in dvc(shop, "push", "data.dvc")


def _killed_behind(root: Path, step: str) -> None:
    """In a child: the process ends as if it were killed, right behind the step."""

    def ending(run: Callable[..., Any], mine: Callable[..., bool]) -> Callable[..., Any]:
        def then_end(*arguments: Any) -> Any:
            found = run(*arguments)
            if mine(*arguments):
                os._exit(9)
            return found

        return then_end

    project = DvcProject(root)
    module.run_child = ending(module.run_child, lambda command, *_: step in command)
    if step in ("add", "push"):
        setattr(project, step, ending(getattr(project, step), lambda *_: True))
    ingest_arrivals(project, "north", True, ignore)
    os._exit(0)


def test_the_sensor_asks_once_for_each_state_of_an_inbox(shop: Path) -> None:
    sensor = inbox_sensor(DvcProject(shop), ["north", "south"])

    def tick() -> dg.SensorResult:
        found = sensor(dg.build_sensor_context())
        assert isinstance(found, dg.SensorResult)
        return found

    drop(shop, "may.txt", "half...")
    waiting = tick()
    assert not waiting.run_requests
    assert "north: may.txt may still grow" in str(waiting.skip_reason)
    assert "south: no keys" in str(waiting.skip_reason)
    drop(shop, "may.txt", "one")
    (first,) = tick().run_requests or []
    (second,) = tick().run_requests or []
    assert first.partition_key == "north"
    assert first.run_key == second.run_key
    drop(shop, "may.txt", "two")
    (third,) = tick().run_requests or []
    assert third.run_key != first.run_key
    (shop / "broken").touch()
    with pytest.raises(dg.Failure, match="the server is down"):
        tick()


def test_the_real_step_answers_what_the_sensor_asks(
    root: Path, params: Callable[..., Path]
) -> None:
    inbox = {"north": {"source": "inbox/north", "settled_seconds": 3600, "push": False}}
    for name in ("params.yaml", "operations.yaml"):
        shutil.copyfile(params(inbox=inbox).with_name(name), root / name)
    (root / "inbox/north").mkdir(parents=True)
    (root / "inbox/north/may.jsonl").write_text("{}")
    found = module.check_inboxes(DvcProject(root))
    assert found["sample"] == {"ready": [], "waiting": []}
    assert [file["name"] for file in found["north"]["waiting"]] == ["may.jsonl"]
    assert json.dumps(found)
