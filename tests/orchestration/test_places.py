"""Projects below folders whose names have a meaning in URLs, in shells or in YAML."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from sqlalchemy.engine import make_url

from llmsrec.core.errors import ConfigError
from orchestration import instance as home
from orchestration import registry
from orchestration.mlflow_runs import MlflowRuns, ParentRun, tracking_uri
from orchestration.registry import Registry
from tests.orchestration.small_project import QUIET

pytestmark = QUIET
ROOT = Path(__file__).parents[2]
PLACES = [
    "a b",
    "a%20b",
    "a?b",
    "a#b",
    "a&b",
    "it's",
    'a"b',
    "a;b",
    "50%",
    "\u00fcn\u00ef",
    "$HOME",
    "a+b",
    "a=b",
]


@pytest.mark.parametrize("place", PLACES)
def test_the_url_of_the_database_is_that_of_the_file(tmp_path: Path, place: str) -> None:
    url = make_url(tracking_uri(tmp_path / place))
    assert (url.database, dict(url.query)) == (str(tmp_path / place / "mlflow.db"), {})


def test_runs_files_and_versions_are_written_and_read_below_such_a_folder(
    tmp_path: Path, mlflow_database: Path
) -> None:
    root = tmp_path / "a%20b?c#d e's&"
    root.mkdir()
    (root / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    (root / "report.html").write_text("report")
    bundle = root / "packed" / "artifacts" / "bundle"
    bundle.mkdir(parents=True)
    (bundle / "weights").write_text("weights")
    parent = ParentRun("pass", "shop")
    with MlflowRuns(root, "test").start_run("evaluation", parent, {}) as run:
        run.outcome, run.artifacts = "ran", [root / "report.html"]
    models = Registry(root, "shop")
    models.promote(models.register(root / "packed", run.run_id, {}), "by hand")
    version = Registry(root, "shop").version_by_alias("champion")
    assert version is not None
    again = tmp_path / "again"
    again.mkdir()
    assert (models.download_bundle(version, again) / "weights").read_text() == "weights"
    kept = root / "mlartifacts" / run.run_id / "artifacts" / "report.html"
    assert kept.read_text() == "report"
    assert {path.name for path in tmp_path.iterdir()} == {root.name, "again"}, "nothing beside it"


@pytest.mark.parametrize("place", ["a%20b", "a?b"])
def test_dagster_keeps_its_history_in_such_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / place / ".dagster"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = home.prepare()
    assert folder == tmp_path / place / ".dagster"
    with dg.DagsterInstance.get() as instance:
        instance.add_run(dg.DagsterRun(job_name="pipeline"))
    assert (folder / "history" / "runs.db").is_file()
    assert not set("%?") & set(os.environ["DAGSTER_HOME"])


def test_every_command_of_the_graph_quotes_the_name() -> None:
    """`dvc repro` hands a wrong name to the stage, which refuses it, and not to the shell."""
    name = "Home & Kitchen; exit 3"
    for file in ("dvc.yaml", "studies/dvc.yaml"):
        for stage in yaml.safe_load((ROOT / file).read_text())["stages"].values():
            command = stage["cmd"].replace("${item.dataset}", name).replace("${item.study}", name)
            words = shlex.split(command, comments=True)
            plain = shlex.split(stage["cmd"].replace("${item.", "").replace("}", ""))
            assert len(words) == len(plain)
            assert sum(name in word for word in words) == stage["cmd"].count("${item.")


def test_make_serve_takes_the_name_as_one_word(tmp_path: Path) -> None:
    (tmp_path / "mlflow").write_text('#!/bin/sh\nfor word; do echo "<$word>"; done\n')
    (tmp_path / "mlflow").chmod(0o755)
    make = ["make", "--dry-run", "--directory", str(ROOT), "serve"]
    recipe = subprocess.run(make, capture_output=True, text=True, check=True).stdout
    environment = {
        **os.environ,
        "DATASET": "a b; echo 'c'",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-c", recipe[recipe.index("MLFLOW_TRACKING_URI") :].partition("\nmake")[0]],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "<models:/llmsrec-a b; echo 'c'@champion>" in done.stdout.splitlines()


@pytest.mark.parametrize("text", ["datasets: {2023: sample}", "datasets: {my shop: sample}"])
def test_a_wrong_name_stops_dagster_before_it_has_an_asset(tmp_path: Path, text: str) -> None:
    from orchestration.definitions import build, datasets

    (tmp_path / "params.yaml").write_text(text)
    for read in (datasets, build):
        with pytest.raises(ConfigError, match="datasets has the name"):
            read(tmp_path)


def test_a_wrong_name_stops_commands_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(home, "ROOT", tmp_path)
    (tmp_path / "params.yaml").write_text("datasets: {on: sample}")
    with pytest.raises(SystemExit, match=r"error: .*params\.yaml: datasets has the name True"):
        home.main(["true"])
    assert registry.main(["show", "--dataset", "it's"], tmp_path) == 1
    assert capsys.readouterr().err.startswith('error: the command line has the name "it\'s"')


def test_make_run_stops_with_one_line(tmp_path: Path) -> None:
    """In a copy, since definitions are built from the files beside the code when they are imported."""
    for name in ("orchestration", "infra"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "params.yaml").write_text("datasets: {my shop: sample}")
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.run"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DAGSTER_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: {tmp_path / 'params.yaml'}: datasets has the name 'my shop'"
    )
    assert "Traceback" not in done.stderr
