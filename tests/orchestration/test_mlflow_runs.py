"""One MLflow run for each materialisation that really ran, under one parent a pass, in a SQLite file."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from orchestration.dvc_project import DvcProject
from orchestration.mlflow_runs import ARTIFACT_LIMIT, LOCAL_UI, MlflowRuns, ParentRun, flatten
from tests.orchestration.small_project import (
    QUIET,
    Materialise,
    change_params,
    commit,
    git,
    runs_of,
)
from tests.orchestration.test_dvc_assets import metadata, outcomes

pytestmark = QUIET

PARAMS = {"teacher": {"epochs": 2, "norm": "pre", "nested": {"rate@1": None}}}


@pytest.fixture(scope="module")
def repository(mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with a commit, and MLflow's tables."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copyfile(mlflow_database, root / "mlflow.db")
    git(root, "init", "--quiet")
    (root / ".gitignore").write_text("/mlflow.db\n/mlartifacts/\n")
    (root / "code.py").write_text("print('one')\n")
    commit(root)
    return root


@pytest.fixture
def tracker(repository: Path) -> MlflowRuns:
    return MlflowRuns(repository, "test")


def children(tracker: MlflowRuns, part_of: ParentRun) -> list[Run]:
    found = runs_of(tracker.root, part_of.dagster_run)
    return [run for run in found if run.data.tags["stage"] != "pipeline"]


def parent(tracker: MlflowRuns, run: Run) -> Run:
    return MlflowClient(tracker.uri).get_run(run.data.tags["mlflow.parentRunId"])


def test_a_run_keeps_params_metrics_tags_and_small_files(
    tracker: MlflowRuns, tmp_path: Path
) -> None:
    part_of = ParentRun("pass-1", "north")
    (tmp_path / "report.html").write_text("<p>good</p>")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.html").write_text("<p>docs</p>")
    with tracker.start_run("teacher", part_of, PARAMS, start=1_700_000_000) as open_run:
        open_run.outcome = "ran"
        open_run.metrics = {"ndcg@10": 0.25, "seconds": 3}
        open_run.headline = {"teacher NDCG@10": 0.25}
        open_run.tags["dvc_hash"] = "abc.dir"
        open_run.artifacts = [tmp_path / "report.html", tmp_path / "docs", tmp_path / "missing"]
    (run,) = children(tracker, part_of)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "north teacher"
    compared = parent(tracker, run).data.metrics
    assert compared.pop("minutes") >= 0
    assert compared == {"teacher NDCG_at_10": 0.25}
    assert run.info.start_time == 1_700_000_000_000
    assert run.data.params == {
        "teacher.epochs": "2", "teacher.norm": "pre", "teacher.nested.rate_1": "None",
    }  # fmt: skip
    assert run.data.metrics == {"ndcg_at_10": 0.25, "seconds": 3.0}
    assert (
        run.data.tags.items()
        >= {
            "dvc_hash": "abc.dir",
            "outcome": "ran",
            "stage": "teacher",
            "dataset": "north",
            "dagster_run": "pass-1",
            "mlflow.source.git.commit": git(tracker.root, "rev-parse", "HEAD"),
            "git_dirty": "false",
        }.items()
    )
    assert (
        open_run.url == f"{LOCAL_UI}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    )
    client = MlflowClient(tracker.uri)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"report.html", "docs"}
    assert (tracker.root / "mlartifacts" / run.info.run_id).is_dir()


def test_runs_of_one_materialization_share_a_parent_run(
    tracker: MlflowRuns,
) -> None:
    passes = [
        ParentRun("pass-2", "north"),
        ParentRun("pass-2", "north"),
        ParentRun("pass-2", "south"),
    ]
    passes.append(ParentRun("pass-3", "north"))
    for part_of in passes:
        with MlflowRuns(tracker.root, "test").start_run("splits", part_of, {}) as run:
            run.outcome = "ran"
    second, third = children(tracker, passes[0]), children(tracker, passes[3])
    parents = {run.info.run_id: parent(tracker, run) for run in [*second, *third]}
    by_dataset = {each.data.tags["dataset"] for each in parents.values()}
    assert by_dataset == {"north", "south"}
    assert len(parents) == 4
    assert len({each.info.run_id for each in parents.values()}) == 3
    for run in [*second, *third]:
        tags = parents[run.info.run_id].data.tags
        assert tags["stage"] == "pipeline"
        assert tags["dagster_run"] == run.data.tags["dagster_run"]
        assert tags["dataset"] == run.data.tags["dataset"]


def test_a_run_and_its_parent_have_the_status_running(tracker: MlflowRuns) -> None:
    part_of = ParentRun("pass-4", None)
    with tracker.start_run("splits", part_of, {}):
        (run,) = children(tracker, part_of)
        assert (run.info.status, parent(tracker, run).info.status) == ("RUNNING", "RUNNING")
        assert run.data.tags["dataset"] == "all"
    with tracker.start_run("teacher", part_of, {}):
        assert parent(tracker, run).info.status == "RUNNING", "opened again by the next stage"


def refuse() -> None:
    raise ValueError("no")


def interrupt() -> None:
    raise KeyboardInterrupt


def nothing() -> None:
    """The block ends by itself; its outcome stays `failed` until something better is known."""


@pytest.mark.parametrize(
    ("end", "raised", "status"),
    [
        (nothing, None, "FAILED"),
        (refuse, ValueError, "FAILED"),
        (interrupt, KeyboardInterrupt, "KILLED"),
    ],
)
def test_the_final_status_is_that_of_the_stage(
    tracker: MlflowRuns, end: Callable[[], None], raised: Any, status: str
) -> None:
    part_of = ParentRun(f"pass-{end.__name__}", "north")

    def work() -> None:
        with tracker.start_run("teacher", part_of, {}):
            end()

    if raised is None:
        work()
    else:
        with pytest.raises(raised):
            work()
    (run,) = children(tracker, part_of)
    assert run.info.status == status
    assert parent(tracker, run).info.status == status
    assert run.data.tags["outcome"] == "failed"


def test_many_params_and_long_values_are_kept(tracker: MlflowRuns) -> None:
    part_of = ParentRun("pass-5", "north")
    with tracker.start_run("teacher", part_of, {"many": {f"knob{n}": n for n in range(250)}}):
        pass
    (run,) = children(tracker, part_of)
    assert len(run.data.params) == 250
    assert run.data.params["many.knob249"] == "249"


def test_large_files_are_not_logged(tracker: MlflowRuns, tmp_path: Path) -> None:
    part_of = ParentRun("pass-6", "north")
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(ARTIFACT_LIMIT + 1)
    with tracker.start_run("teacher", part_of, {}) as open_run:
        open_run.artifacts = [tmp_path / "large.bin"]
    (run,) = children(tracker, part_of)
    assert MlflowClient(tracker.uri).list_artifacts(run.info.run_id) == []


def test_a_stage_logs_its_metrics_to_the_run_of_the_environment(
    tracker: MlflowRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmsrec.training.loop import MetricLog

    part_of = ParentRun("pass-7", "north")
    with tracker.start_run("teacher", part_of, {}) as open_run:
        for name, value in open_run.env.items():
            monkeypatch.setenv(name, value)
        log = MetricLog()
        log(1, **{"ndcg@10": 0.1})
        log(2, **{"ndcg@10": 0.2})
    (run,) = children(tracker, part_of)
    history = MlflowClient(tracker.uri).get_metric_history(run.info.run_id, "ndcg_at_10")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.1), (2, 0.2)]


def test_uncommitted_changes_are_tagged(tracker: MlflowRuns) -> None:
    part_of = ParentRun("pass-8", "north")
    (tracker.root / "code.py").write_text("print('two')\n")
    with tracker.start_run("teacher", part_of, {}):
        pass
    git(tracker.root, "checkout", "--quiet", "code.py")
    (run,) = children(tracker, part_of)
    assert run.data.tags["git_dirty"] == "true"


def test_a_server_may_be_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MlflowRuns(repository, "test").uri == f"sqlite+pysqlite:///{repository / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000/")
    assert MlflowRuns(repository, "test").uri == "http://tracking:5000/"


def test_flatten_names_leaves_by_their_path() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2, 3]}}, "e": {}}) == {"a.b": 1, "a.c.d": [2, 3]}


def test_materialising_opens_a_run_for_what_ran_and_none_for_what_did_not(
    project: Path, materialise: Materialise
) -> None:
    tracker = MlflowRuns(project, "test")
    change_params(project, counts={"add": 3})
    first = materialise(project, "north", tracker)
    assert outcomes(first) == {"words": "unchanged", "counts": "ran"}
    assert "mlflow_run" not in metadata(first, "words")
    found = {run.data.tags["stage"]: run for run in runs_of(project, first.run_id)}
    assert set(found) == {"pipeline", "counts"}
    run = found["counts"]
    assert run.info.status == "FINISHED"
    assert metadata(first, "counts")["mlflow_run"].endswith(f"/runs/{run.info.run_id}")
    assert run.data.params == {"counts.add": "3"}
    assert run.data.metrics["words"] == 9
    assert run.data.metrics["length.max_at_1"] == 5
    assert run.data.metrics["seconds"] > 0
    assert run.data.tags["dvc_stage"] == "counts@north"
    assert run.data.tags["dvc_hash"] == DvcProject(project).stage("counts@north").data_version
    kept = {file.path for file in MlflowClient(tracker.uri).list_artifacts(run.info.run_id)}
    assert kept == {"counts.json", "lengths.json", "page.html", "dot.png"}

    second = materialise(project, "north", tracker)
    assert outcomes(second) == {"words": "unchanged", "counts": "unchanged"}
    assert runs_of(project, second.run_id) == []

    change_params(project, counts={"add": 0})
    third = materialise(project, "north", tracker)
    assert outcomes(third)["counts"] == "restored"
    tags = [run.data.tags for run in runs_of(project, third.run_id)]
    assert [tag["outcome"] for tag in tags if tag["stage"] == "counts"] == ["restored"]


def test_a_stage_that_fails_is_a_failed_run_without_metrics(
    project: Path, materialise: Materialise
) -> None:
    change_params(project, words={"least": 99})
    start = time.time()
    result = materialise(project, "north", MlflowRuns(project, "test"))
    assert not result.success
    found = {run.data.tags["stage"]: run for run in runs_of(project, result.run_id)}
    assert set(found) == {"pipeline", "words"}
    assert found["words"].info.status == found["pipeline"].info.status == "FAILED"
    assert found["words"].data.metrics == {}
    assert found["words"].data.params == {"words.least": "99", "words.strict": "True"}
    assert found["words"].info.start_time >= 1000 * start - 1
