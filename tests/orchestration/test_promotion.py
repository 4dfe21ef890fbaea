"""The asset `champion` on a trained dataset: real stages, a real registry, and a kill between any two steps."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from mlflow.tracking import MlflowClient

from llmsrec.core.files import sha256
from orchestration import promotion
from orchestration.dvc_project import DvcProject
from orchestration.mlflow_runs import MlflowRuns
from orchestration.promotion import champion_asset
from orchestration.registry import Registry, main
from tests.orchestration.small_project import QUIET

pytestmark = [
    *QUIET,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Operation with range"),  # MLflow on pandas 3
]
CHECKOUT = Path(__file__).parents[2]
Champion = Callable[[], Any]


@pytest.fixture
def root(
    tmp_path: Path, mlflow_database: Path, trained_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project whose dataset `tiny` is trained and evaluated, with MLflow's tables."""
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", "operations.yaml", ".dvc/config"):
        shutil.copyfile(CHECKOUT / name, root / name)
    document = yaml.safe_load((CHECKOUT / "params.yaml").read_text())
    document |= {"datasets": {"tiny": "made up"}}
    document["evaluation"]["bootstrap"] = 200
    (root / "params.yaml").write_text(yaml.safe_dump(document))
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    shutil.copyfile(mlflow_database, root / "mlflow.db")
    train(root, trained_dataset)
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    return root


@pytest.fixture
def at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages run in this process, where all is imported already."""
    from llmsrec.stages import compare_champion, pack_bundle

    stages = {"pack_bundle": pack_bundle, "compare_champion": compare_champion}

    def run(command: list[str], *_: Any) -> tuple[int, list[str]]:
        stages[command[2].rpartition(".")[2]].main(command[3:])
        return 0, []

    monkeypatch.chdir(root)
    monkeypatch.setattr(promotion, "run_child", run)


def gates(root: Path, *, holds: bool) -> None:
    row = {"name": "order", "success": holds, "severity": "error", "observed": "nothing is lost"}
    (root / "reports" / "tiny").mkdir(parents=True, exist_ok=True)
    model = sha256(root / "artifacts/tiny/recommender/config.json")
    document = {"success": holds, "results": [row], "model": model}
    (root / "reports/tiny/gates.json").write_text(json.dumps(document))


def train(root: Path, dataset: Path) -> None:
    (root / "artifacts").mkdir(exist_ok=True)
    (root / "artifacts/tiny").unlink(missing_ok=True)
    (root / "artifacts/tiny").symlink_to(dataset)
    gates(root, holds=True)


def materialise(root: Path, instance: dg.DagsterInstance) -> dict[str, Any]:
    project = DvcProject(root, external=("data",))
    asset = champion_asset(project, {"tiny": "made up"}, MlflowRuns(root, "test"))
    result = dg.materialize([asset], partition_key="tiny", instance=instance)
    (event,) = result.asset_materializations_for_node("champion")
    return {name: value.value for name, value in event.metadata.items()}


def told(root: Path) -> dict[str, Any]:
    return json.loads((root / "reports/tiny/promotion.json").read_text())


def aliases(root: Path) -> dict[str, list[str]]:
    return {v.number: sorted(v.aliases) for v in Registry(root, "tiny").versions()}


def test_first_champion_refusal_and_rollback(
    root: Path,
    shuffled_dataset: Path,
    trained_dataset: Path,
    instance: dg.DagsterInstance,
    capsys: pytest.CaptureFixture[str],
    at_once: None,
) -> None:
    """A worse champion is replaced, a spoilt challenger refused, a rollback stands."""
    train(root, shuffled_dataset)
    first = materialise(root, instance)
    assert first["outcome"] == "promoted"
    assert first["why"] == ("version 1 is promoted: the gates hold and there is no champion yet")
    assert told(root)["why"] == first["why"]
    assert aliases(root) == {"1": ["challenger", "champion"]}
    described = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_model_version(
        "llmsrec-tiny", "1"
    )
    assert described.description.endswith(first["why"])

    train(root, trained_dataset)
    second = materialise(root, instance)
    assert second["outcome"] == "promoted"
    assert second["champion_before"] == "1"
    assert second["sampled.difference.low"] > 0
    assert aliases(root) == {"1": [], "2": ["challenger", "champion"]}
    tags = Registry(root, "tiny").version("2").tags
    assert tags["champion_before"] == "1"
    assert {"dvc_splits", "dvc_teacher", "dvc_student"} <= set(tags)

    again = materialise(root, instance)
    assert again["outcome"] == "unchanged"
    assert second["why"] in again["why"]

    train(root, shuffled_dataset)
    third = materialise(root, instance)
    assert third["outcome"] == "refused"
    assert "worse than the champion: sampled NDCG@10" in third["why"]
    assert aliases(root) == {"1": ["challenger"], "2": ["champion"]}, "registered once"

    train(root, trained_dataset)
    assert materialise(root, instance)["outcome"] == "unchanged"
    assert told(root)["version"] == "2", "no word of the refused one"

    assert main(["rollback", "--dataset", "tiny"], root) == 0
    assert "champion is version 1 again, version 2 was rolled back" in capsys.readouterr().out
    fourth = materialise(root, instance)
    assert fourth["outcome"] == "refused"
    assert "version 2 was rolled back on" in fourth["why"]
    assert main(["promote", "--dataset", "tiny", "--version", "2"], root) == 0
    assert aliases(root) == {"1": [], "2": ["challenger", "champion"]}
    capsys.readouterr()
    assert main(["show", "--dataset", "tiny"], root) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "version 2" in shown[1]
    assert shown[1].endswith("challenger  champion")


def test_a_failed_gate_refuses_the_first_champion_too(
    root: Path, instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str], at_once: None
) -> None:
    gates(root, holds=False)
    found = materialise(root, instance)
    assert found["outcome"] == "refused"
    assert "a gate of the evaluation does not hold (order: nothing is lost)" in found["why"]
    assert aliases(root) == {"1": ["challenger"]}
    assert main(["rollback", "--dataset", "tiny"], root) == 1
    assert "has no champion" in capsys.readouterr().err


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


KILLS = [
    ("log_artifacts", "", "before"),
    ("create_model_version", "", "before"),
    ("create_model_version", "", "after"),
    ("set_registered_model_alias", "challenger", "after"),
    ("set_model_version_tag", "why", "before"),
    ("set_registered_model_alias", "champion", "before"),
]


def test_after_a_kill_anywhere_a_rerun_gives_the_same_registry(
    root: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, at_once: None
) -> None:
    from mlflow.tracking import MlflowClient

    for step, about, moment in KILLS:
        whole = getattr(MlflowClient, step)

        def killed(
            *arguments: Any,
            whole: Any = whole,
            about: str = about,
            moment: str = moment,
            **more: Any,
        ) -> Any:
            if about and about not in arguments:
                return whole(*arguments, **more)
            if moment == "after":
                whole(*arguments, **more)
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, step, killed)
            with pytest.raises(Killed):
                materialise(root, instance)
        assert Registry(root, "tiny").version_by_alias("champion") is None, (step, about)
    found = materialise(root, instance)
    assert found["outcome"] == "promoted"
    assert aliases(root) == {"1": ["challenger", "champion"]}
    champion = Registry(root, "tiny").version_by_alias("champion")
    assert champion is not None
    assert champion.tags["why"] == found["why"] == told(root)["why"]


def test_a_rollback_while_the_challenger_is_compared_stands(
    root: Path,
    shuffled_dataset: Path,
    trained_dataset: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    at_once: None,
) -> None:
    """The challenger was compared with a champion that is none any more: it is not promoted over the one before."""
    train(root, shuffled_dataset)
    materialise(root, instance)
    whole = promotion._Promotion._compare

    def slow(self: Any, champion: Any) -> Any:
        registry = Registry(root, "tiny")
        registry.client.delete_registered_model_alias(registry.name, "champion")
        return whole(self, champion)

    train(root, trained_dataset)
    with monkeypatch.context() as patch:
        patch.setattr(promotion._Promotion, "_compare", slow)
        with pytest.raises(dg.Failure, match="the champion changed while"):
            materialise(root, instance)
    assert Registry(root, "tiny").version_by_alias("champion") is None
    assert materialise(root, instance)["outcome"] == "promoted"


def test_after_a_kill_behind_the_alias_change_nothing_remains_to_do(
    root: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, at_once: None
) -> None:
    whole = Registry.promote

    def killed(*arguments: Any) -> None:
        whole(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "promote", killed)
        with pytest.raises(Killed):
            materialise(root, instance)
    found = materialise(root, instance)
    assert found["outcome"] == "unchanged"
    assert told(root)["why"] in found["why"]
    assert aliases(root) == {"1": ["challenger", "champion"]}
