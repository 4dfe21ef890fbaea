"""Which runs are alive: the process of a run holds a lock in Dagster's home, and the system lets go of it however the
process ends.

Dagster by itself does not see that a run's process was killed: the run would count as started, and keep the places
in the pools that its steps had, for as long as `run_monitoring` allows, and everybody after it would wait. Runs whose
processes are on other machines leave no lock here and are their launcher's business.
"""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg

FOLDER = "alive"
LOOK, TELL = 0.5, 30.0  # seconds between two looks for a turn, and between two lines about it
KILLED = "Its process ended without a word: it was killed, or the machine went down"
_held: dict[str, int] = {}  # descriptors, by the name of the file


def home() -> Path | None:
    """None without Dagster's home: nobody else knows of these runs."""
    found = os.environ.get("DAGSTER_HOME")
    return Path(found) / FOLDER if found else None


def begin(run_id: str) -> Callable[[], None]:
    """This process is the run's, until the call that is returned or its end. The file stays for `bury`: a run that
    ended may have been unable to say so, or to leave its pools, where the disk was full."""
    folder = home()
    if folder is None:
        return lambda: None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run_id}.run"
    aside = path.with_suffix(".new")  # nobody sees the file before it is locked
    _held[path.name] = _open(aside)
    fcntl.flock(_held[path.name], fcntl.LOCK_EX)
    os.replace(aside, path)
    return lambda: os.close(_held.pop(path.name))


def dataset_lock(partition: str, say: Callable[[str], None]) -> Callable[[], None]:
    """Wait until no other process works on this partition; it is ours until the call that is returned, or our end."""
    folder = home()
    if folder is None:
        return lambda: None
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(partition.encode()).hexdigest()[:16] + ".turn"
    descriptor, told = _open(folder / name), float("-inf")
    while not _locked(descriptor):
        if time.monotonic() - told >= TELL:
            told = time.monotonic()
            say(f"another run works on {partition}; waiting until it is over")
        time.sleep(LOOK)
    _held[name] = descriptor
    return lambda: os.close(_held.pop(name))


def reap_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Runs that died since the last time, failed now; the places of those and of all that ended are free."""
    folder = home()
    found = []
    for path in sorted(folder.glob("*.run")) if folder else []:
        with _if_dead(path) as dead:
            if not dead:
                continue
            run = instance.get_run_by_id(path.stem)
            if run is not None and not run.is_finished:
                instance.report_run_failed(run, KILLED)
                found.append(run.run_id)
            instance.event_log_storage.free_concurrency_slots_for_run(path.stem)
            path.unlink(missing_ok=True)
    return found


@contextlib.contextmanager
def _if_dead(path: Path) -> Iterator[bool]:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _locked(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _RunLock(dg.Executor):
    """Another executor, in whose runs these locks are held until the process ends."""

    def __init__(self, inner: dg.Executor) -> None:
        self.inner = inner

    @property
    def retries(self) -> Any:
        return self.inner.retries

    @property
    def step_dependency_config(self) -> Any:
        return self.inner.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        begin(plan_context.run_id)
        if partition := plan_context.dagster_run.tags.get("dagster/partition"):
            dataset_lock(partition, plan_context.log.info)
        yield from self.inner.execute(plan_context, execution_plan)


def _alive(context: dg.InitExecutorContext) -> dg.Executor:
    inner = dg.in_process_executor.executor_creation_fn
    assert inner is not None
    return _RunLock(inner(context))


alive_executor = dg.ExecutorDefinition(
    name="in_process",
    config_schema=dg.in_process_executor.config_schema,  # type: ignore[arg-type]
    executor_creation_fn=_alive,
    description="Dagster's in-process executor, of whose runs is known whether they live",
)


@dg.sensor(
    name="dead_runs",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,  # it only writes down what is so
    description="Runs whose process was killed have failed, and free their places in the pools",
)
def dead_runs_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    found = reap_dead_runs(context.instance)
    return dg.SkipReason(f"died: {', '.join(run[:8] for run in found)}" if found else "none died")
