"""When to train anew: a cron per dataset, and a minimum of lines that arrived since the interactions were built."""

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration import arrivals
from orchestration.dvc_project import DvcProject
from orchestration.raw_reviews import FOLDER

PARTITION = "dagster/partition"  # Dagster's own tag of a run; infra/dagster.yaml limits by it
UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

JOB = "retrain"
ASIDE = dg.AssetSelection.groups("comparison")  # hours of training, for those who ask

retraining_job = dg.define_asset_job(
    JOB,
    selection=dg.AssetSelection.assets("arrivals").downstream() - ASIDE,
    description="Every step of one dataset but the download: a server that is away keeps nobody from training",
)


@dataclass(frozen=True)
class Schedule:
    cron: str
    timezone: str
    min_new_interactions: int


def retraining_schedules(
    project: DvcProject, schedules: Mapping[str, Mapping[str, Any] | None]
) -> list[dg.ScheduleDefinition]:
    """One for each dataset that operations.yaml schedules; null for none."""
    return [
        _schedule(project, dataset, read(dataset, values))
        for dataset, values in schedules.items()
        if values is not None
    ]


def read(dataset: str, values: Mapping[str, Any]) -> Schedule:
    try:
        schedule = Schedule(**values)
    except TypeError as error:
        raise ValueError(
            f"operations.yaml: schedules.{dataset} is {dict(values)} ({error}); expected cron, timezone and "
            "min_new_interactions, or null"
        ) from None
    minimum = schedule.min_new_interactions
    if type(minimum) is not int or minimum < 0:
        raise ValueError(
            f"operations.yaml: schedules.{dataset}.min_new_interactions is {minimum!r}; expected a whole "
            "number of at least 0"
        )
    return schedule


def _schedule(project: DvcProject, dataset: str, schedule: Schedule) -> dg.ScheduleDefinition:
    @dg.schedule(
        name="retrain_" + re.sub(r"\W", "_", dataset),
        cron_schedule=schedule.cron,
        execution_timezone=schedule.timezone,
        job=retraining_job,
        default_status=dg.DefaultScheduleStatus.RUNNING,  # it does nothing until enough has arrived
        description=f"Trains {dataset} anew once {schedule.min_new_interactions:,} lines have arrived",
    )
    def retrain(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return judge(context.instance, project.root, dataset, schedule)

    return retrain


def judge(
    instance: dg.DagsterInstance, root: Path, dataset: str, schedule: Schedule
) -> dg.RunRequest | dg.SkipReason:
    """A run if enough is new, or if the last one failed half-way, whose interactions hold the new lines already."""
    mine = {PARTITION: dataset}
    for run in instance.get_runs(dg.RunsFilter(tags=mine, statuses=UNDER_WAY)):
        if run.job_name != arrivals.JOB:
            return dg.SkipReason(f"{dataset}: run {run.run_id[:8]} is under way")
    last = instance.get_runs(dg.RunsFilter(job_name=JOB, tags=mine), limit=1)
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
    """Lines of review files that the interactions do not hold yet, and those that they hold."""
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
    """Once for each raw file: these never change."""
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        return sum(1 for line in stream if line.strip())
