"""The asset that downloads: what is new is tracked by DVC, what is not changes nothing."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration.dvc_project import DvcProject
from orchestration.mlflow_runs import MlflowRuns
from orchestration.raw_reviews import raw_reviews_asset
from tests.orchestration.small_project import QUIET, git, runs_of
from tests.orchestration.test_dvc_assets import events, metadata, version

pytestmark = QUIET

# In the place of the real step; it reads what it is to write, and leaves a partial file as a broken download does.
DOWNLOAD = """
import argparse, sys
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument("--dataset")
parser.add_argument("--out", type=Path)
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
(args.out / ".half.partial").write_text("half")
if Path("offline").exists():
    sys.exit("error: no network: try again")
target = args.out / f"{args.dataset}.csv"
text = Path("shop").read_text()
if not target.exists():
    target.write_text(text)
print("fetched", target)
"""


@pytest.fixture
def shop(project: Path) -> Path:
    step = project / "llmsrec" / "stages" / "download.py"
    step.parent.mkdir(parents=True)
    step.write_text(DOWNLOAD)
    for package in (step.parent, step.parent.parent):
        (package / "__init__.py").touch()  # else the real one is found where PYTHONPATH names it
    (project / "shop").write_text("user,item\n")
    (project / ".dvcignore").write_text("__pycache__\n*.partial\n")
    return project


def fetch(root: Path, dataset: str, instance: dg.DagsterInstance) -> Any:
    project = DvcProject(root, external=("data",))
    sources = {"north": "https://shop", "east": "s3://shop/east"}
    return dg.materialize(
        [raw_reviews_asset(project, sources, MlflowRuns(root, "test"))],
        partition_key=dataset,
        instance=instance,
        raise_on_error=False,
    )


def test_a_new_dataset_is_downloaded_and_tracked(shop: Path, instance: dg.DagsterInstance) -> None:
    project = DvcProject(shop)
    north = project.tracked_hash("data/north")
    result = fetch(shop, "east", instance)
    assert result.success
    shown = metadata(result, "raw_reviews")
    assert shown["outcome"] == "ran"
    assert shown["source"] == "s3://shop/east"
    assert shown["east.csv"] == len("user,item\n")
    assert ".half.partial" not in shown
    assert version(result, "raw_reviews") == project.tracked_hash("data/east")
    assert project.tracked_hash("data/north") == north
    assert not project.is_stale("words@north"), "what is built of other datasets stays"
    runs = {run.data.tags["stage"]: run for run in runs_of(shop, result.run_id)}
    assert set(runs) == {"pipeline", "raw_reviews"}
    assert runs["raw_reviews"].info.status == "FINISHED"
    assert runs["raw_reviews"].data.params == {"source": "s3://shop/east"}
    assert runs["raw_reviews"].data.tags["dvc_hash"] == project.tracked_hash("data/east")
    assert runs["raw_reviews"].info.run_id in shown["mlflow_run"]


def test_what_is_there_already_changes_nothing(shop: Path, instance: dg.DagsterInstance) -> None:
    first = fetch(shop, "east", instance)
    tracked = (shop / "data.dvc").read_text()
    again = fetch(shop, "east", instance)
    assert metadata(again, "raw_reviews")["outcome"] == "unchanged"
    assert version(again, "raw_reviews") == version(first, "raw_reviews")
    assert (shop / "data.dvc").read_text() == tracked
    assert runs_of(shop, again.run_id) == []


def test_the_first_download_of_all_tracks_the_whole_folder(
    shop: Path, instance: dg.DagsterInstance
) -> None:
    (shop / "data.dvc").unlink()
    assert fetch(shop, "north", instance).success
    project = DvcProject(shop)
    assert project.tracked_hash("data/north/north.csv") is not None
    assert project.tracked_hash("data/south/text.txt") is not None
    assert git(shop, "check-ignore", "data") == "data"


def test_a_failed_download_is_reported_and_tracks_nothing(
    shop: Path, instance: dg.DagsterInstance
) -> None:
    (shop / "offline").touch()
    tracked = (shop / "data.dvc").read_text()
    result = fetch(shop, "east", instance)
    assert not result.success
    (failed,) = events(result, dg.DagsterEventType.STEP_FAILURE)
    failure = failed.step_failure_data.user_failure_data
    assert failure is not None
    assert failure.description == "raw_reviews@east failed\nerror: no network: try again"
    assert (shop / "data.dvc").read_text() == tracked
    statuses = {run.info.status for run in runs_of(shop, result.run_id)}
    assert statuses == {"FAILED"}


def test_a_file_that_an_interrupted_run_left_untracked_is_tracked_by_the_next(
    shop: Path, instance: dg.DagsterInstance
) -> None:
    (shop / "data/east").mkdir()
    (shop / "data/east/east.csv").write_text("user,item\n")
    result = fetch(shop, "east", instance)
    assert metadata(result, "raw_reviews")["outcome"] == "unchanged", "nothing was fetched"
    assert version(result, "raw_reviews") == DvcProject(shop).tracked_hash("data/east")
    assert version(result, "raw_reviews") != "none"
