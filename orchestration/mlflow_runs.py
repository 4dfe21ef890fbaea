"""One MLflow run for each stage that is run, under one parent run for each Dagster run and dataset.

The default store is a SQLite file and a folder in the project; MLFLOW_TRACKING_URI names a server instead.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from llmsrec.core.files import exclusive_lock

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

ARTIFACT_LIMIT = 20_000_000  # bytes; DVC keeps larger files
LOCAL_UI = "http://127.0.0.1:5000"  # where infra/Procfile serves the SQLite store
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # MLflow opens the pages of trainings
    "mlflow.note.content": "One run for each Dagster run and dataset, with a child for each stage. The columns to "
    "compare are the metrics `evaluation ...`, `minutes` and `version` of the parent runs.",
}
FORBIDDEN = re.compile(r"[^\w\-. :/]")  # characters that MLflow refuses in names


@dataclass
class TrackedRun:
    """An active run; the caller fills outcome, tags, metrics and artifacts, which are logged when it ends.

    `headline` holds the metrics that are logged to the parent run too."""

    run_id: str
    env: Mapping[str, str]
    url: str
    outcome: str = "failed"
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    headline: dict[str, float] = field(default_factory=dict)
    artifacts: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class ParentRun:
    """Identifies a parent run: the Dagster run, and its partition if it has one."""

    dagster_run: str
    item: str | None

    @property
    def tags(self) -> dict[str, str]:
        return {"dagster_run": self.dagster_run, "dataset": self.item or "all"}


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file of the project at `root`.

    SQLAlchemy decodes the path. MLflow creates the folder of `sqlite:///...` without decoding it, hence the driver."""
    path = quote(str(root / "mlflow.db"), safe="/ ")
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite+pysqlite:///{path}"


class MlflowRuns:
    """Runs in one MLflow experiment, which is created at the first run."""

    def __init__(self, root: Path, experiment: str) -> None:
        self.root, self.experiment = root, experiment
        self.uri = tracking_uri(root)
        self._connection: tuple[Any, str] | None = None

    @contextmanager
    def start_run(
        self, name: str, parent: ParentRun, params: Mapping[str, Any], start: float | None = None
    ) -> Iterator[TrackedRun]:
        """A child run of `parent`, named by dataset and stage; `start` is in seconds since the epoch, by default now.

        Its status is FINISHED if the block ends with an outcome other than `failed`, KILLED if it is interrupted.
        """
        client, experiment = self._connect()
        parent_id = self._parent_id(client, experiment, parent)
        tags = {"mlflow.parentRunId": parent_id, "stage": name, **parent.tags, **_git(self.root)}
        started = int((start if start is not None else time.time()) * 1000)
        run_name = f"{parent.item} {name}" if parent.item else name
        run_id = client.create_run(experiment, started, tags, run_name=run_name).info.run_id
        _log_params(client, run_id, params)
        run = TrackedRun(
            run_id=run_id,
            env={"MLFLOW_RUN_ID": run_id, "MLFLOW_TRACKING_URI": self.uri},
            url=f"{self._ui_url()}/#/experiments/{experiment}/runs/{run_id}",
        )
        status = "KILLED"
        try:
            yield run
            status = "FAILED" if run.outcome == "failed" else "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            _end_run(client, run_id, run, status)
            _end_parent(client, parent_id, run, status)

    def commit(self) -> str | None:
        """The git commit of the project, if it is a repository."""
        return _git(self.root).get("mlflow.source.git.commit")

    def _ui_url(self) -> str:
        return self.uri.rstrip("/") if self.uri.startswith("http") else LOCAL_UI

    def _connect(self) -> tuple[Any, str]:
        """The MLflow client and the id of the experiment."""
        if self._connection is None:
            from mlflow.tracking import MlflowClient  # takes seconds: only when a run starts

            embedded = self.uri.startswith("sqlite")
            artifacts = (self.root / "mlartifacts").as_uri() if embedded else None
            with exclusive_lock(self.root):  # one process creates MLflow's tables and experiment
                client = MlflowClient(self.uri)
                existing = client.get_experiment_by_name(self.experiment)
                experiment = (
                    existing.experiment_id
                    if existing
                    else client.create_experiment(self.experiment, artifacts, EXPERIMENT_TAGS)
                )
            self._connection = client, experiment
        return self._connection

    def _parent_id(self, client: Any, experiment: str, parent: ParentRun) -> str:
        """The id of the parent run, which is created or set to RUNNING again."""
        query = " and ".join(f"tags.{key} = '{value}'" for key, value in parent.tags.items())
        query += " and tags.stage = 'pipeline'"
        if runs := client.search_runs([experiment], query, max_results=1):
            run_id = str(runs[0].info.run_id)
            client.update_run(run_id, status="RUNNING")
            return run_id
        name = f"{parent.item or 'pipeline'} {time.strftime('%Y-%m-%d %H:%M')}"
        tags = {"stage": "pipeline", **parent.tags, **_git(self.root)}
        return str(client.create_run(experiment, tags=tags, run_name=name).info.run_id)


def flatten(document: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings, under dotted names."""
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
    for first in range(0, len(rows), 100):  # MLflow's limit per batch
        client.log_batch(run_id, params=rows[first : first + 100])


def _end_parent(client: Any, parent_id: str, run: TrackedRun, status: str) -> None:
    """Log what a person compares first to the pipeline's run: the headline of each stage and the minutes so far."""
    started = client.get_run(parent_id).info.start_time
    _log_metrics(client, parent_id, run.headline | {"minutes": time.time() / 60 - started / 60_000})
    client.set_terminated(parent_id, status)


def _log_metrics(client: Any, run_id: str, values: Mapping[str, float]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [
        Metric(FORBIDDEN.sub("_", name.replace("@", "_at_")), float(value), now, 0)
        for name, value in values.items()
    ]
    for first in range(0, len(metrics), 1000):  # MLflow's limit per batch
        client.log_batch(run_id, metrics=metrics[first : first + 1000])


def _end_run(client: Any, run_id: str, run: TrackedRun, status: str) -> None:
    from mlflow.entities import RunTag

    _log_metrics(client, run_id, run.metrics)
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
    """Tags of the commit and of uncommitted changes; empty outside of a repository."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    if not commit:
        return {}
    dirty = bool(git("status", "--porcelain", "--untracked-files=no"))
    return {"mlflow.source.git.commit": commit, "git_dirty": str(dirty).lower()}
