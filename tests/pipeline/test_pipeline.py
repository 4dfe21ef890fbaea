"""The pipeline with small settings: by the commands of docs/tutorial.md, by `dvc repro` alone, by Dagster's daemon.

Each build takes minutes, so that all tests share three: two of the tutorial (before and after new purchases arrive) and
one by `dvc repro`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient

import llmsrec
from benchmarks.serving import served
from orchestration.dvc_project import DvcProject
from orchestration.registry import Registry
from reliability.project import STAGES, environment, outputs, python, write_project
from tests.pipeline.daemon import daemon

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader"),  # MLflow with SQLAlchemy
    pytest.mark.filterwarnings("ignore:Operation with range"),  # MLflow on pandas 3
]

DATASET, HISTORY = "books", ["B0000", "B0001"]
TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
REPLACED = {  # the targets of the Makefile would install the packages again
    "make setup": "true",
    "source .venv/bin/activate": "true",
    "make run": f"{sys.executable} -m orchestration.run",
}
SERVER = f"make serve DATASET={DATASET}"
ADDRESS = "http://127.0.0.1:5001"
TIMEOUT = 800  # seconds; the machine may be busy


@dataclass(frozen=True)
class Build:
    """A project, and the hashes of its data and outputs after the first build."""

    root: Path
    data: str
    outputs: dict[str, str]


@dataclass(frozen=True)
class Tutorial:
    """The project in which all commands were run, and what each printed, in order."""

    first: Build
    printed: list[tuple[str, str]]

    def output(self, command: str, number: int = 0) -> str:
        """What the command that begins so printed, the first time or a later one."""
        return [text for ran, text in self.printed if ran.startswith(command)][number]


def blocks(language: str | None = None) -> list[tuple[str, str]]:
    """The language and the content of every fenced block of the tutorial, or of those in one language."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in found if language in (None, block[0])]


def change_settings(root: Path, block: str) -> None:
    """Merge a block that begins with `# <file>` into that file; sections with an entry per dataset are replaced."""
    name, document = block.split("\n")[0].removeprefix("# "), yaml.safe_load(block)
    settings: dict[str, Any] = yaml.safe_load((root / name).read_text())
    for section, values in document.items():
        base = {} if section in ("datasets", "inbox", "schedules") else settings[section]
        settings[section] = base | values
    (root / name).write_text(yaml.safe_dump(settings, sort_keys=False))


def shell(root: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True,
        env=environment(root) | {"PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_of(root: Path) -> Build:
    return Build(root, (root / "data.dvc").read_text(), outputs(root, DATASET))


def commands() -> Iterator[tuple[str, str]]:
    """Every command and program of the tutorial with its language."""
    for language, block in blocks():
        if language == "console":
            yield from ((language, line) for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE))
        else:
            yield language, block


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Tutorial:
    root = write_project(tmp_path_factory.mktemp("tutorial") / "project", DATASET, "docs/tutorial")
    printed: list[tuple[str, str]] = []
    first: Build | None = None
    for language, command in commands():
        if language == "yaml":
            change_settings(root, command)
        elif language == "python":
            printed.append((command, shell(root, sys.executable, "-c", command)))
        elif ADDRESS in command:
            printed.append((command, ask_server(root, command)))
        elif command != SERVER:  # started for the command that asks it
            printed.append((command, shell(root, "bash", "-c", REPLACED.get(command, command))))
        if command == "make run" and first is None:
            first = build_of(root)
    assert first is not None
    return Tutorial(first, printed)


def ask_server(root: Path, command: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
        patch.chdir(root)
        with served(f"models:/llmsrec-{DATASET}@champion") as url:
            return shell(root, "bash", "-c", command.replace(ADDRESS, url))


@pytest.fixture(scope="module")
def by_dvc(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A second project with the tutorial's settings, built without Dagster."""
    root = write_project(tmp_path_factory.mktemp("dvc") / "project", DATASET, "docs/tutorial")
    for _, block in blocks("yaml"):
        change_settings(root, block)
    python(root, "llmsrec.stages.download", "--dataset", DATASET, "--out", f"data/{DATASET}")
    python(root, "dvc", "add", "data")
    python(root, "dvc", "repro")
    return build_of(root)


@pytest.fixture(scope="module")
def dagster_after_dvc(by_dvc: Build) -> tuple[str, set[str]]:
    """What `make run` prints where `dvc repro` has built everything, and the stages that have MLflow runs."""
    printed = python(by_dvc.root, "orchestration.run")
    client = MlflowClient(f"sqlite:///{by_dvc.root / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("llmsrec").experiment_id])
    return printed, {run.data.tags["stage"] for run in runs}


def outcomes(printed: str) -> dict[str, str]:
    """What became of each asset, as `make run` prints it."""
    return dict(re.findall(r"^✓ (\w+) +[\d.]+ s  (\w+)", printed, re.MULTILINE))


def test_make_run_builds_every_asset(tutorial: Tutorial) -> None:
    root, printed = tutorial.first.root, tutorial.output("make run")
    built = dict.fromkeys(["raw_reviews", *STAGES], "ran")
    assert outcomes(printed) == {"arrivals": "unchanged", **built, "champion": "promoted"}
    assert "The champion: version 1 is promoted: " in printed
    assert f"The report: {root / 'reports' / DATASET / 'report.html'}" in printed
    assert "95% bootstrap intervals" in printed


def test_metrics_have_intervals_and_the_report_is_one_page(tutorial: Tutorial) -> None:
    reports = tutorial.first.root / "reports" / DATASET
    metrics = json.loads((reports / "metrics.json").read_text())
    assert {"popularity", "markov", "teacher", "student"} <= set(metrics["systems"])
    for system in metrics["systems"].values():
        for ranking in ("sampled", "full"):
            for name in ("ndcg@10", "hr@10"):
                metric = system[ranking][name]
                assert 0 <= metric["low"] <= metric["value"] <= metric["high"] <= 1
    assert metrics["users"] > 20
    page = (reports / "report.html").read_text()
    assert "<html" in page
    assert not re.search(r'(src|href)="https?://', page), "it needs no network"
    expectations = json.loads((reports / "expectations.json").read_text())
    assert expectations["success"] is True


def test_command_line_python_and_server_recommend_the_same(tutorial: Tutorial) -> None:
    assert tutorial.output("head").startswith("user_id,parent_asin,timestamp,title\n")
    table = re.findall(r"^│ *\d+ *│ *(\w+)", tutorial.output("llmsrec recommend"), re.MULTILINE)
    lines = [line.split()[1] for line in tutorial.output("import llmsrec").splitlines()]
    (answer,) = json.loads(tutorial.output("curl"))["predictions"]
    assert answer["source"] != "popularity"
    assert len(lines) == 3
    assert table == lines == answer["items"]


def test_new_purchases_are_taken_in_and_everything_is_built_again(tutorial: Tutorial) -> None:
    root, printed = tutorial.first.root, tutorial.output("make run", 1)
    found = outcomes(printed)
    assert found.pop("champion") in ("promoted", "refused"), "by what so small a training learns"
    assert found.pop("raw_reviews") == "unchanged"
    assert set(found.values()) == {"ran"}
    assert [file.name for file in (root / f"inbox/{DATASET}/done").iterdir()] == ["purchases.csv"]
    before, after = tutorial.first.outputs, outputs(root, DATASET)
    trained = [f"artifacts/{DATASET}/{name}" for name in ("interactions", "teacher", "student")]
    assert all(before[path] != after[path] for path in trained)


def test_versions_are_promoted_by_hand_and_rolled_back(tutorial: Tutorial) -> None:
    assert "champion is version 2, by hand" in tutorial.output("python -m orchestration.registry p")
    returned = tutorial.output("python -m orchestration.registry rollback")
    assert "champion is version 1 again, version 2 was rolled back" in returned


def test_afterwards_dvc_finds_nothing_to_do(tutorial: Tutorial) -> None:
    root = tutorial.first.root
    before = [(root / name).read_text() for name in ("data.dvc", "dvc.lock")]
    assert "Data and pipelines are up to date." in python(root, "dvc", "repro")
    assert [(root / name).read_text() for name in ("data.dvc", "dvc.lock")] == before


def test_dvc_alone_builds_the_same_bytes(tutorial: Tutorial, by_dvc: Build) -> None:
    """Models, reports and metrics: an output that said when or how fast it was made would differ, and its md5, which is
    Dagster's data version, would change when nothing did."""
    first = tutorial.first
    paths = set(first.outputs)
    assert {f"artifacts/{DATASET}/{name}" for name in STAGES if name != "evaluation"} <= paths
    assert {f"reports/{DATASET}/{name}" for name in ("metrics.json", "report.html")} <= paths
    assert by_dvc.outputs == first.outputs
    assert by_dvc.data == first.data


def test_dagster_takes_what_dvc_built_as_it_is(dagster_after_dvc: tuple[str, set[str]]) -> None:
    printed, tracked = dagster_after_dvc
    unchanged = dict.fromkeys(["raw_reviews", "arrivals", *STAGES], "unchanged")
    assert outcomes(printed) == unchanged | {"champion": "promoted"}
    assert tracked == {"pipeline", "champion"}, "what did not run is no MLflow run"


@pytest.fixture
def daemon_home(
    tutorial: Tutorial, by_dvc: Build, dagster_after_dvc: tuple[str, set[str]], tmp_path: Path
) -> Iterator[Path]:
    """The home of a daemon that checks the second project's schedule every minute and knows of no run and no model yet.

    DVC restores what the tutorial trained with the same purchases instead of training it again.
    """
    root = by_dvc.root
    shutil.copytree(tutorial.first.root / ".dvc/cache", root / ".dvc/cache", dirs_exist_ok=True)
    operations = yaml.safe_load((root / "operations.yaml").read_text())
    operations["schedules"][DATASET]["cron"] = "* * * * *"
    (root / "operations.yaml").write_text(yaml.safe_dump(operations, sort_keys=False))
    home, log = tmp_path / "home", tmp_path / "daemon.log"
    env = environment(root) | {"PYTHONPATH": str(root), "DAGSTER_HOME": str(home)}
    env["MLFLOW_TRACKING_URI"] = f"sqlite:///{home.with_name('mlflow.db')}"
    with daemon(root, env, log):
        yield home


def test_the_daemon_retrains_on_a_file_in_the_inbox_and_promotes_the_result(
    tutorial: Tutorial, by_dvc: Build, daemon_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sensors report what DVC built and take in the file, its schedule trains."""
    root, inbox = by_dvc.root, by_dvc.root / "inbox" / DATASET
    log = daemon_home.with_name("daemon.log")
    with dg.DagsterInstance.from_config(str(daemon_home)) as instance:
        wait(lambda: materialisations(instance, "evaluation"), log)
        inbox.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / "docs/tutorial/new/purchases.csv", inbox / ".partial")
        os.replace(inbox / ".partial", inbox / "purchases.csv")
        runs = wait(lambda: finished(instance), log)
    assert {job: run.status.value for job, run in runs.items()} == {
        "take_arrivals": "SUCCESS", "retrain": "SUCCESS",
    }  # fmt: skip
    assert runs["take_arrivals"].tags["dagster/sensor_name"] == "inbox"
    assert runs["take_arrivals"].tags["dagster/partition"] == DATASET
    assert runs["retrain"].tags["dagster/schedule_name"] == f"retrain_{DATASET}"
    assert "2,209 built, 100 new ones needed" in runs["retrain"].tags["why"]
    assert (inbox / "done/purchases.csv").exists()
    (arrived,) = (root / "data" / DATASET).glob(f"{DATASET}.*.csv")
    assert DvcProject(root).tracked_hash(f"data/{DATASET}/{arrived.name}") is not None
    assert outputs(root, DATASET) == outputs(tutorial.first.root, DATASET)
    decision = json.loads((root / f"reports/{DATASET}/promotion.json").read_text())
    assert (decision["outcome"], decision["version"]) == ("promoted", "1")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{daemon_home.with_name('mlflow.db')}")
    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow puts the model's code first
    assert Registry(root, DATASET).version("1").aliases == ("challenger", "champion")
    champion = mlflow.pyfunc.load_model(f"models:/llmsrec-{DATASET}@champion")
    answer = champion.predict(pd.DataFrame({"history": [HISTORY]}), params={"k": 3})
    trained = llmsrec.load(root / "artifacts" / DATASET).recommend(HISTORY, 3)
    assert answer["items"][0] == [item.item_id for item in trained]


def materialisations(instance: dg.DagsterInstance, asset: str) -> list[Any]:
    wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[DATASET])
    return list(instance.fetch_materializations(wanted, limit=9).records)


def finished(instance: dg.DagsterInstance) -> dict[str, dg.DagsterRun]:
    """The only run of each job, once the retraining and all others have ended; empty before."""
    runs = list(instance.get_runs())
    jobs = {run.job_name: run for run in runs}
    if "retrain" not in jobs or not all(run.is_finished for run in runs):
        return {}
    assert len(jobs) == len(runs), [run.job_name for run in runs]
    return jobs


def wait(poll: Callable[[], Any], log: Path) -> Any:
    """The first result that is not empty."""
    deadline = time.monotonic() + TIMEOUT
    while not (result := poll()):
        assert time.monotonic() < deadline, log.read_text()[-8000:]
        time.sleep(0.5)
    return result
