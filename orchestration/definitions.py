"""The Dagster entry point: raw_reviews, the assets derived from dvc.yaml, champion, and a job over all of them."""

from pathlib import Path

import dagster as dg
import yaml

from orchestration.dvc_assets import dvc_assets
from orchestration.dvc_project import DvcProject
from orchestration.mlflow_runs import MlflowRuns
from orchestration.promotion import champion_asset
from orchestration.raw_reviews import FOLDER, raw_reviews_asset
from orchestration.terminal import terminal_logger

ROOT = Path(__file__).resolve().parents[1]
JOB = "pipeline"


def datasets(root: Path = ROOT) -> dict[str, str]:
    document = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    return dict(document["datasets"])


def build(root: Path = ROOT) -> dg.Definitions:
    project = DvcProject(root, external=(FOLDER,))
    tracker = MlflowRuns(root, experiment="llmsrec")
    assets = [
        raw_reviews_asset(project, datasets(root), tracker),
        *dvc_assets(project, {FOLDER: "raw_reviews"}, tracker),
        champion_asset(project, datasets(root), tracker),
    ]
    return dg.Definitions(
        assets=assets,
        jobs=[dg.define_asset_job(JOB, description="Every step of one dataset")],
        loggers={"terminal": terminal_logger},
        executor=dg.in_process_executor,  # the steps are processes of their own already
    )


defs = build()
