"""The small project, written and built once; a test that changes it gets a copy."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from mlflow.tracking import MlflowClient

from orchestration.dvc_assets import dvc_assets
from orchestration.dvc_project import DvcProject
from tests.orchestration.small_project import Materialise, copy_project, dvc, write_project


@pytest.fixture(scope="session", autouse=True)
def own_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Neither DVC, Dagster nor MLflow reads or leaves anything outside the tests' folder."""
    home = tmp_path_factory.mktemp("homes")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
            patch.setenv(name, str(home / name.lower()))
        (home / "dagster").mkdir()
        patch.setenv("DAGSTER_HOME", str(home / "dagster"))
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
            patch.delenv(name, raising=False)
        yield home


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage is up to date. To look at only."""
    root = write_project(tmp_path_factory.mktemp("built") / "project")
    dvc(root, "add", "--quiet", "data")
    dvc(root, "repro", "--quiet")
    return root


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    """A built project to change."""
    return copy_project(built, tmp_path / "project")


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with MLflow's tables and nothing in them: making them takes seconds."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}")
    return file


@pytest.fixture
def project(root: Path, mlflow_database: Path) -> Path:
    """A built project with MLflow's tables."""
    shutil.copyfile(mlflow_database, root / "mlflow.db")
    return root


@pytest.fixture(scope="session")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(str(tmp_path_factory.mktemp("dagster"))) as instance:
        yield instance


@pytest.fixture
def materialise(instance: dg.DagsterInstance) -> Materialise:
    """The chain of one dataset, as a job over a partition runs it; without a dataset, the summary of all."""

    def run(root: Path, item: str | None, tracker: Any = None) -> Any:
        names = ["words", "counts"] if item else ["summary"]
        return dg.materialize(
            dvc_assets(DvcProject(root, external=("data",)), {}, tracker),
            selection=dg.AssetSelection.assets(*names),
            partition_key=item,
            instance=instance,
            raise_on_error=False,
        )

    return run
