"""The Dagster entry point: all assets, jobs, sensors and schedules.

Download, arrivals and champion are written by hand; all other assets are derived from dvc.yaml.
"""

from pathlib import Path
from typing import Any

import dagster as dg

from llmsrec.core.config import OPERATIONS, PARAMS, read_document, read_section
from orchestration.arrivals import arrivals_asset, arrivals_job, inbox_sensor
from orchestration.dvc_assets import dvc_assets
from orchestration.dvc_project import DvcProject
from orchestration.lock_sensor import dvc_lock_sensor
from orchestration.mlflow_runs import MlflowRuns
from orchestration.promotion import champion_asset
from orchestration.raw_reviews import FOLDER, raw_reviews_asset
from orchestration.run_liveness import dead_runs_sensor, locking_executor
from orchestration.schedules import STUDY_ASSETS, retraining_job, retraining_schedules
from orchestration.terminal import terminal_logger

ROOT = Path(__file__).resolve().parents[1]
JOB = "pipeline"
PIPELINES = ("dvc.yaml", "studies/dvc.yaml")


def datasets(root: Path = ROOT) -> dict[str, str]:
    """The source of each dataset of params.yaml; raises ConfigError."""
    return read_section("datasets", root / PARAMS)


def operations(name: str, root: Path) -> dict[str, Any]:
    """A section of operations.yaml without the entries of datasets that params.yaml does not name."""
    file = root / OPERATIONS
    entries = (read_document(file) if file.exists() else {}).get(name) or {}
    return {dataset: values for dataset, values in entries.items() if dataset in datasets(root)}


def study_jobs(assets: list[Any]) -> list[Any]:
    """A job for each asset of studies/dvc.yaml, if there is one; a job may not have the name of an asset."""
    keys = {key.to_user_string() for asset in assets for key in getattr(asset, "keys", [])}
    jobs = {
        "trainings": ("train_study", "The trainings of a study on a dataset"),
        "study": ("tabulate_study", "The table of a study, once it is trained (`train_study`)"),
    }
    return [
        dg.define_asset_job(name, selection=dg.AssetSelection.assets(asset), description=text)
        for asset, (name, text) in jobs.items()
        if asset in keys
    ]


def build(root: Path = ROOT) -> dg.Definitions:
    """All Dagster definitions of the project at `root`."""
    project = DvcProject(root, external=(FOLDER,), pipelines=PIPELINES)
    tracker = MlflowRuns(root, experiment="llmsrec")
    inboxes = {name: one for name, one in operations("inbox", root).items() if one is not None}
    assets = [
        raw_reviews_asset(project, datasets(root), tracker),
        arrivals_asset(project, list(datasets(root)), inboxes),
        *dvc_assets(project, {FOLDER: "arrivals"}, tracker),
        champion_asset(project, datasets(root), tracker),
    ]
    return dg.Definitions(
        assets=assets,
        jobs=[
            dg.define_asset_job(
                JOB,
                selection=dg.AssetSelection.all() - STUDY_ASSETS,
                description="Every step of one dataset",
            ),
            *study_jobs(assets),
            arrivals_job,
            retraining_job,
        ],
        sensors=[inbox_sensor(project, list(inboxes)), dvc_lock_sensor(project), dead_runs_sensor],
        schedules=retraining_schedules(project, operations("schedules", root)),
        loggers={"terminal": terminal_logger},
        executor=locking_executor,  # in process: each step starts a child process
    )


defs = build()
