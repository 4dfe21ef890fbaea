"""A run whose process was killed is noticed: it has failed, and nobody waits for its places in the pools."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from orchestration import run_liveness
from tests.orchestration.small_project import QUIET

pytestmark = QUIET

CHECKOUT = Path(__file__).parents[2]
SECONDS = 240  # for another process; the machine may be busy
LOG = SimpleNamespace(info=print)

RUN = """
import os, sys, time
from pathlib import Path
import dagster as dg
from orchestration import run

@dg.asset(pool="cpu", partitions_def=dg.StaticPartitionsDefinition(["shop"]))
def slow(context):
    Path(sys.argv[1]).touch()
    while Path(sys.argv[2]).exists():
        time.sleep(0.05)
    return dg.MaterializeResult(metadata={"outcome": "ran", "seconds": 0.1})

from orchestration.terminal import terminal_logger
job = dg.define_asset_job("pipeline", selection=dg.AssetSelection.assets("slow"))
defs = dg.Definitions(assets=[slow], jobs=[job], loggers={"terminal": terminal_logger})
with dg.DagsterInstance.get() as instance:
    result = run.run_job(defs.resolve_job_def("pipeline"), instance, "shop", Path(sys.argv[1] + ".log"))
    print("ended", result.success, flush=True)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "home"
    found.mkdir()
    (found / "dagster.yaml").write_text((CHECKOUT / "infra/dagster.yaml").read_text())
    monkeypatch.setenv("DAGSTER_HOME", str(found))
    return found


class Runs:
    """Processes that materialise `slow`, which lasts as long as the file `hold` is there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.hold = folder, folder / "hold"
        (folder / "program.py").write_text(RUN)
        self.started: list[subprocess.Popen[str]] = []

    def start(self, name: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(self.folder / "program.py"), str(self.folder / name)]
        process = subprocess.Popen(
            [*command, str(self.hold)],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, f"{name} never came"
            time.sleep(0.05)


@pytest.fixture
def runs(home: Path, tmp_path: Path) -> Iterator[Runs]:
    found = Runs(tmp_path)
    yield found
    for process in found.started:
        process.kill()
        process.communicate()


def statuses() -> list[str]:
    """Of all runs, the oldest first."""
    with dg.DagsterInstance.get() as instance:
        return [run.status.value for run in reversed(instance.get_runs())]


@pytest.mark.slow
def test_after_a_kill_the_next_run_takes_the_place_of_the_killed_one(runs: Runs) -> None:
    runs.hold.touch()
    killed = runs.start("first")
    runs.wait_for("first")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert statuses() == ["STARTED"]
    runs.hold.unlink()
    said, _ = runs.start("second").communicate(timeout=SECONDS)
    assert "was killed: this run continues from its last checkpoints" in said
    assert "ended True" in said
    assert statuses() == ["FAILURE", "SUCCESS"]


@pytest.mark.slow
def test_a_second_run_of_a_dataset_waits_and_says_so(runs: Runs) -> None:
    runs.hold.touch()
    first = runs.start("first")
    runs.wait_for("first")
    second = runs.start("second")
    assert second.stdout is not None
    line = second.stdout.readline()
    assert "another run of shop is in progress; waiting for its end" in line
    assert statuses() == ["STARTED"]
    runs.hold.unlink()
    assert "ended True" in first.communicate(timeout=SECONDS)[0]
    assert "ended True" in second.communicate(timeout=SECONDS)[0]
    assert statuses() == ["SUCCESS", "SUCCESS"]


def test_running_and_finished_runs_are_not_changed(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        living = instance.create_run_for_job(a_job, status=dg.DagsterRunStatus.STARTED)
        end = run_liveness.lock_run(living.run_id)
        assert run_liveness.reap_dead_runs(instance) == []
        instance.report_run_canceled(living)
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default("cpu")
        assert storage.claim_concurrency_slot("cpu", living.run_id, "step").is_claimed
        end()
        assert run_liveness.reap_dead_runs(instance) == []
        assert storage.get_concurrency_info("cpu").active_slot_count == 0, "it could not leave"
        assert list((home / run_liveness.FOLDER).iterdir()) == []


def test_the_sensor_fails_a_dead_run_and_frees_its_slots(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        dead = instance.create_run_for_job(a_job, status=dg.DagsterRunStatus.STARTED)
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default("cpu")
        assert storage.claim_concurrency_slot("cpu", dead.run_id, "step").is_claimed
        run_liveness.lock_run(dead.run_id)
        os.close(
            run_liveness._descriptors.pop(f"{dead.run_id}.run")
        )  # as the system does at the end of a process
        told = run_liveness.dead_runs_sensor(dg.build_sensor_context(instance=instance))
        assert isinstance(told, dg.SkipReason)
        assert told.skip_message == f"marked as failed: {dead.run_id[:8]}"
        found = instance.get_run_by_id(dead.run_id)
        assert found is not None
        assert found.status == dg.DagsterRunStatus.FAILURE
        assert storage.get_concurrency_info("cpu").active_slot_count == 0
        told = run_liveness.dead_runs_sensor(dg.build_sensor_context(instance=instance))
        assert isinstance(told, dg.SkipReason)
        assert told.skip_message == "no dead runs"


def test_without_dagster_home_no_lock_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    run_liveness.lock_run("some-run")()
    run_liveness.lock_dataset("shop", print)()
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_liveness.reap_dead_runs(instance) == []


@dg.op
def nothing() -> None: ...


@dg.job
def a_job() -> None:
    nothing()


class Inner(dg.Executor):
    """Looks at the locks that are there while it executes."""

    def __init__(self, home: Path) -> None:
        self.home = home

    @property
    def retries(self) -> Any:
        return None

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        assert sorted(path.suffix for path in (self.home / run_liveness.FOLDER).iterdir()) == [
            ".dataset",
            ".run",
        ]
        return iter(())


def test_our_executor_holds_the_locks_of_a_run_until_its_process_ends(home: Path) -> None:
    tags = {"dagster/partition": "shop"}
    context = SimpleNamespace(run_id="some-run", dagster_run=SimpleNamespace(tags=tags), log=LOG)
    assert list(run_liveness._LockingExecutor(Inner(home)).execute(context, None)) == []
    assert not run_liveness._try_lock(
        os.open(home / f"{run_liveness.FOLDER}/some-run.run", os.O_RDWR)
    )
    for name in list(run_liveness._descriptors):
        os.close(run_liveness._descriptors.pop(name))


def test_the_project_uses_the_locking_executor_and_the_sensor_for_dead_runs() -> None:
    from orchestration import definitions  # reads dvc.yaml, not without a warning of DVC's

    assert definitions.defs.executor is run_liveness.locking_executor
    assert run_liveness.dead_runs_sensor in (definitions.defs.sensors or [])
