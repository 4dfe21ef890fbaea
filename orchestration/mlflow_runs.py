"""One MLflow run for each materialisation that really runs, under one parent for each pass over a dataset.

The default is a SQLite file and a folder in the project; MLFLOW_TRACKING_URI names a server instead.
"""

import fcntl
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

ARTIFACT_LIMIT = 20_000_000  # bytes; larger files are DVC's business
LOCAL_UI = "http://127.0.0.1:5000"  # where infra/Procfile serves the embedded store
FORBIDDEN = re.compile(r"[^\w\-. :/]")


@dataclass
class TrackedRun:
    """What the caller learns while the run is open; written to MLflow when it closes."""

    run_id: str
    env: Mapping[str, str]
    url: str
    outcome: str = "failed"
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    artifacts: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Pass:
    """What ties the runs of one pass together: the Dagster run, and the partition where there is one."""

    dagster_run: str
    item: str | None

    @property
    def tags(self) -> dict[str, str]:
        return {"dagster_run": self.dagster_run, "dataset": self.item or "all"}


def tracking_uri(root: Path) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"


class MlflowRuns:
    def __init__(self, root: Path, experiment: str) -> None:
        self.root, self.experiment = root, experiment
        self.uri = tracking_uri(root)
        self._known: tuple[Any, str] | None = None

    @contextmanager
    def open(
        self, name: str, part_of: Pass, params: Mapping[str, Any], start: float | None = None
    ) -> Iterator[TrackedRun]:
        """FINISHED when the block ends and its outcome is not `failed`; KILLED when it is interrupted."""
        client, experiment = self._store()
        parent = self._parent(client, experiment, part_of)
        tags = {"mlflow.parentRunId": parent, "stage": name, **part_of.tags, **_git(self.root)}
        started = int((start if start is not None else time.time()) * 1000)
        run_id = client.create_run(experiment, started, tags, run_name=name).info.run_id
        _log_params(client, run_id, params)
        run = TrackedRun(
            run_id=run_id,
            env={"MLFLOW_RUN_ID": run_id, "MLFLOW_TRACKING_URI": self.uri},
            url=f"{self._ui()}/#/experiments/{experiment}/runs/{run_id}",
        )
        status = "KILLED"
        try:
            yield run
            status = "FAILED" if run.outcome == "failed" else "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            _close(client, run_id, run, status)
            client.set_terminated(parent, status)

    def commit(self) -> str | None:
        return _git(self.root).get("mlflow.source.git.commit")

    def _ui(self) -> str:
        return self.uri.rstrip("/") if self.uri.startswith("http") else LOCAL_UI

    def _store(self) -> tuple[Any, str]:
        if self._known is None:
            from mlflow.tracking import MlflowClient  # takes seconds: only when a run opens

            embedded = self.uri.startswith("sqlite")
            artifacts = (self.root / "mlartifacts").as_uri() if embedded else None
            with _alone(self.root):
                client = MlflowClient(self.uri)
                found = client.get_experiment_by_name(self.experiment)
                experiment = (
                    found.experiment_id
                    if found
                    else client.create_experiment(self.experiment, artifact_location=artifacts)
                )
            self._known = client, experiment
        return self._known

    def _parent(self, client: Any, experiment: str, part_of: Pass) -> str:
        query = " and ".join(f"tags.{key} = '{value}'" for key, value in part_of.tags.items())
        query += " and tags.stage = 'pipeline'"
        if found := client.search_runs([experiment], query, max_results=1):
            run_id = str(found[0].info.run_id)
            client.update_run(run_id, status="RUNNING")
            return run_id
        name = f"{part_of.item or 'pipeline'} {time.strftime('%Y-%m-%d %H:%M')}"
        tags = {"stage": "pipeline", **part_of.tags, **_git(self.root)}
        return str(client.create_run(experiment, tags=tags, run_name=name).info.run_id)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """MLflow's first tables and experiment are made by one process at a time; the lock leaves no file."""
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def flatten(document: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings under dotted names."""
    if isinstance(document, Mapping):
        return {
            name: leaf
            for key, value in document.items()
            for name, leaf in flatten(value, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    return {prefix: document}


def _log_params(client: Any, run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    rows = [Param(FORBIDDEN.sub("_", key), str(value)) for key, value in flatten(params).items()]
    for first in range(0, len(rows), 100):  # as many as MLflow takes at once
        client.log_batch(run_id, params=rows[first : first + 100])


def _close(client: Any, run_id: str, run: TrackedRun, status: str) -> None:
    from mlflow.entities import Metric, RunTag

    now = int(time.time() * 1000)
    metrics = [
        Metric(FORBIDDEN.sub("_", name.replace("@", "_at_")), float(value), now, 0)
        for name, value in run.metrics.items()
    ]
    for first in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[first : first + 1000])
    tags = {"outcome": run.outcome, **run.tags}
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    for path in run.artifacts:
        if path.is_dir() and _size(path) <= ARTIFACT_LIMIT:
            client.log_artifacts(run_id, str(path), path.name)
        elif path.is_file() and path.stat().st_size <= ARTIFACT_LIMIT:
            client.log_artifact(run_id, str(path))
    client.set_terminated(run_id, status)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _git(root: Path) -> dict[str, str]:
    def ask(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = ask("rev-parse", "HEAD")
    if not commit:
        return {}
    dirty = bool(ask("status", "--porcelain", "--untracked-files=no"))
    return {"mlflow.source.git.commit": commit, "git_dirty": str(dirty).lower()}
