"""Retraining schedules: a cron per dataset, and a minimum of lines that the interactions do not contain yet."""

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg

from llmsrec.core.config import OPERATIONS, Natural, from_mapping
from orchestration import arrivals
from orchestration.dvc_project import DvcProject
from orchestration.raw_reviews import FOLDER

PARTITION_TAG = (
    "dagster/partition"  # Dagster's tag of a run; infra/dagster.yaml limits concurrency by it
)
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

JOB = "retrain"
STUDY_ASSETS = dg.AssetSelection.groups("studies")  # hours of training: run only on request

retraining_job = dg.define_asset_job(
    JOB,
    selection=dg.AssetSelection.assets("arrivals").downstream() - STUDY_ASSETS,
    description="All assets of one dataset except the download, whose server may be unavailable",
)


@dataclass(frozen=True)
class Schedule:
    """When to retrain a dataset: at the times of `cron`, if enough lines are new."""

    cron: str
    timezone: str
    min_new_interactions: Natural


def retraining_schedules(
    project: DvcProject, schedules: Mapping[str, Mapping[str, Any] | None]
) -> list[dg.ScheduleDefinition]:
    """A schedule for each dataset whose entry in operations.yaml is not null; raises ConfigError for a wrong entry."""
    return [
        _schedule(
            project, dataset, from_mapping(Schedule, values, f"{OPERATIONS}: schedules.{dataset}")
        )
        for dataset, values in schedules.items()
        if values is not None
    ]


def _schedule(project: DvcProject, dataset: str, schedule: Schedule) -> dg.ScheduleDefinition:
    @dg.schedule(
        name="retrain_" + re.sub(r"\W", "_", dataset),
        cron_schedule=schedule.cron,
        execution_timezone=schedule.timezone,
        job=retraining_job,
        default_status=dg.DefaultScheduleStatus.RUNNING,  # it starts no run until enough has arrived
        description=f"Retrains {dataset} once {schedule.min_new_interactions:,} lines have arrived",
    )
    def retrain(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return evaluate_schedule(context.instance, project.root, dataset, schedule)

    return retrain


def evaluate_schedule(
    instance: dg.DagsterInstance, root: Path, dataset: str, schedule: Schedule
) -> dg.RunRequest | dg.SkipReason:
    """A run request if enough lines are new or the last retraining failed, else the reason to skip.

    A failed retraining may have built its interactions already, so that no line counts as new any more.
    """
    tags = {PARTITION_TAG: dataset}
    for run in instance.get_runs(dg.RunsFilter(tags=tags, statuses=UNFINISHED)):
        if run.job_name != arrivals.JOB:
            return dg.SkipReason(f"{dataset}: run {run.run_id[:8]} is in progress")
    last = instance.get_runs(dg.RunsFilter(job_name=JOB, tags=tags), limit=1)
    failed = bool(last) and last[0].status == dg.DagsterRunStatus.FAILURE
    new, built = new_lines(root, dataset)
    numbers = (
        f"{new:,} new lines, {built:,} built, {schedule.min_new_interactions:,} new ones needed"
    )
    if new < schedule.min_new_interactions and not failed:
        return dg.SkipReason(f"{dataset}: {numbers}")
    return dg.RunRequest(
        partition_key=dataset, tags={"why": "the last run failed" if failed else numbers}
    )


def new_lines(root: Path, dataset: str) -> tuple[int, int]:
    """The number of lines of review files that are not in the interactions yet, and of those that are."""
    report = root / "reports" / dataset / "interactions.json"
    reviews: dict[str, Any] = {"files": [], "lines": 0}
    if report.is_file():
        reviews = json.loads(report.read_text(encoding="utf-8"))["reviews"]
    folder = root / FOLDER / dataset
    new = [
        file
        for file in (folder.iterdir() if folder.is_dir() else ())
        if file.is_file()
        and not file.name.startswith((".", "meta_"))
        and file.name not in reviews["files"]
    ]
    return sum(count_lines(file) for file in new), reviews["lines"]


@lru_cache
def count_lines(file: Path) -> int:
    """The number of non-empty lines. Cached, since raw files never change."""
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        return sum(1 for line in stream if line.strip())
