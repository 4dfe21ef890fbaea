"""Which runs are alive: the process of a run holds a file lock in Dagster's home until it ends in any way.

Dagster by itself does not detect that the process of a run was killed: the run would stay STARTED and keep its pool
slots as long as `run_monitoring` allows, and later runs would wait. Runs on other machines hold no lock here; their
launcher monitors them.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg

FOLDER = "locks"
KILLED = "The process of this run ended unexpectedly: it was killed, or the machine went down"
_descriptors: dict[str, int] = {}  # of the locks that this process holds, by file name


def lock_folder() -> Path | None:
    """The folder of the locks; None without DAGSTER_HOME, since then no other process sees these runs."""
    home = os.environ.get("DAGSTER_HOME")
    return Path(home) / FOLDER if home else None


def lock_run(run_id: str) -> Callable[[], None]:
    """Lock the run for this process; the returned function releases the lock, as does the end of the process.

    `reap_dead_runs` removes the file: a run that met a full disk may have left Dagster with an open run or slots.
    """
    folder = lock_folder()
    if folder is None:
        return lambda: None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run_id}.run"
    unlocked = path.with_suffix(".new")  # renamed once locked: no process sees it unlocked
    _descriptors[path.name] = _open(unlocked)
    fcntl.flock(_descriptors[path.name], fcntl.LOCK_EX)
    os.replace(unlocked, path)
    return lambda: os.close(_descriptors.pop(path.name))


def lock_dataset(partition: str, log: Callable[[str], None]) -> Callable[[], None]:
    """Wait until no other process runs this partition, and lock it; the returned function releases the lock."""
    folder = lock_folder()
    if folder is None:
        return lambda: None
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(partition.encode()).hexdigest()[:16] + ".dataset"
    _descriptors[name] = descriptor = _open(folder / name)
    if not _try_lock(descriptor):
        log(f"another run of {partition} is in progress; waiting for its end")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return lambda: os.close(_descriptors.pop(name))


def reap_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs whose process no longer exists as failed and free the pool slots of all ended runs.

    Returns the ids of the runs that were marked.
    """
    folder = lock_folder()
    reaped = []
    for path in sorted(folder.glob("*.run")) if folder else []:
        with _if_dead(path) as dead:
            if not dead:
                continue
            run = instance.get_run_by_id(path.stem)
            if run is not None and not run.is_finished:
                instance.report_run_failed(run, KILLED)
                reaped.append(run.run_id)
            instance.event_log_storage.free_concurrency_slots_for_run(path.stem)
            path.unlink(missing_ok=True)
    return reaped


@contextlib.contextmanager
def _if_dead(path: Path) -> Iterator[bool]:
    """Whether no process holds the lock; if so, this process holds it inside the block."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _LockingExecutor(dg.Executor):
    """Takes the locks of run and dataset, then executes by `inner`; the end of the process releases the locks."""

    def __init__(self, inner: dg.Executor) -> None:
        self.inner = inner

    @property
    def retries(self) -> Any:
        return self.inner.retries

    @property
    def step_dependency_config(self) -> Any:
        return self.inner.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        lock_run(plan_context.run_id)
        if partition := plan_context.dagster_run.tags.get("dagster/partition"):
            lock_dataset(partition, plan_context.log.info)
        yield from self.inner.execute(plan_context, execution_plan)


def _create_executor(context: dg.InitExecutorContext) -> dg.Executor:
    inner = dg.in_process_executor.executor_creation_fn
    assert inner is not None
    return _LockingExecutor(inner(context))


locking_executor = dg.ExecutorDefinition(
    name="in_process",
    config_schema=dg.in_process_executor.config_schema,  # type: ignore[arg-type]
    executor_creation_fn=_create_executor,
    description="Dagster's in-process executor with a lock for each run and dataset",
)


@dg.sensor(
    name="dead_runs",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,  # it starts no run
    description="Marks runs whose process was killed as failed and frees their pool slots",
)
def dead_runs_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    runs = ", ".join(run[:8] for run in reap_dead_runs(context.instance))
    return dg.SkipReason(f"marked as failed: {runs}" if runs else "no dead runs")
