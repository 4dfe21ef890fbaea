"""A study of a tiny dataset through Dagster; a second pipeline file in general."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import torch
import yaml

from llmsrec.core.files import write_json
from llmsrec.data.splits import Splits
from llmsrec.sequential.sasrec import SASRec, SASRecConfig
from orchestration.dvc_assets import dvc_assets
from orchestration.dvc_project import DvcProject
from orchestration.lock_sensor import dvc_lock_sensor
from tests.orchestration.small_project import QUIET, commit, copy_project, dvc, git

pytestmark = QUIET

CHECKOUT = Path(__file__).parents[2]

# `letter` reads what lies beside the words of one dataset, `letters` the folder of all letters of a dataset.
SIDE = """
vars: [../params.yaml]
stages:
  letter:
    desc: How often a letter is in the words of a dataset
    meta: {dagster: {group: side}}
    wdir: ..
    matrix: {dataset: "${datasets}", letter: [a, s]}
    cmd: >-
      mkdir -p out/${item.dataset}/letters &&
      { grep -o ${item.letter} out/${item.dataset}/words/rest.txt || true; }
      > out/${item.dataset}/letters/${item.letter}
    deps: ["out/${item.dataset}/words"]
    outs: ["out/${item.dataset}/letters/${item.letter}"]
  letters:
    desc: All of them
    meta: {dagster: {group: side}}
    wdir: ..
    matrix: {dataset: "${datasets}"}
    cmd: cat out/${item.dataset}/letters/* > out/${item.dataset}/letters.txt
    deps: ["out/${item.dataset}/letters"]
    outs: ["out/${item.dataset}/letters.txt"]
"""
BOTH = ("dvc.yaml", "side/dvc.yaml")


@pytest.fixture
def sided(built: Path, tmp_path: Path) -> Path:
    root = copy_project(built, tmp_path / "project")
    (root / "side").mkdir()
    (root / "side/dvc.yaml").write_text(SIDE)
    commit(root)
    return root


def test_a_second_file_is_shown_where_it_is_named(sided: Path) -> None:
    """Each partition waits for those that its stage reads, and nothing that stages make is code."""
    assert {stage.name for stage in DvcProject(sided).stages().values()} == {
        "words",
        "counts",
        "summary",
    }
    project = DvcProject(sided, external=("data",), pipelines=BOTH)
    stages = project.stages()
    assert stages["side/dvc.yaml:letters@north"].code == ()
    assert stages["side/dvc.yaml:letters@north"].upstream == (
        "side/dvc.yaml:letter@north-a", "side/dvc.yaml:letter@north-s",
    )  # fmt: skip
    graph = dg.Definitions(dvc_assets(project, {})).resolve_asset_graph()
    found = {
        name: graph.get(dg.AssetKey(name)).partition_mappings[dg.AssetKey(parent)]
        for name, parent in (("letter", "words"), ("letters", "letter"))
    }
    read: dict[str, Any] = {
        name: mapping.downstream_partition_keys_by_upstream_partition_key  # type: ignore[attr-defined]
        for name, mapping in found.items()
    }
    assert read["letter"] == {"north": {"north-a", "north-s"}, "south": {"south-a", "south-s"}}
    assert read["letters"]["north-a"] == {"north"}


def test_what_a_second_file_built_is_reported_too(sided: Path) -> None:
    project = DvcProject(sided, external=("data",), pipelines=BOTH)
    with dg.DagsterInstance.ephemeral() as instance:
        for name, item in (("letter", "north-a"), ("letter", "north-s"), ("letters", "north")):
            done = dg.materialize(
                dvc_assets(project, {}),
                selection=dg.AssetSelection.assets(name),
                partition_key=item,
                instance=instance,
            )
            assert done.success
    assert (sided / "out/north/letters.txt").read_text().split() == ["s"] * 2
    assert [lock.parent.name for lock in project.locks] == ["project", "side"]
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance)
        told = dvc_lock_sensor(project)(context)
    assert isinstance(told, dg.SensorResult)
    events = {(event.asset_key.to_user_string(), event.partition) for event in told.asset_events}
    assert {("letters", "north"), ("letter", "north-a")} <= events
    assert ("letters", "south") not in events


@pytest.fixture
def shop(few_splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pipeline leaves of a dataset, and our own stages."""
    root = tmp_path / "shop"
    for name in ("dvc.yaml", ".dvc/config", ".dvcignore"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / name, root / name)
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("llmsrec", "studies"):
        shutil.copytree(CHECKOUT / package, root / package, ignore=ignored)
    document = yaml.safe_load((CHECKOUT / "params.yaml").read_text())
    document["datasets"] = {"tiny": "none"}
    document["teacher"] |= {"epochs": 1, "embedding_size": 8}
    (root / "params.yaml").write_text(yaml.safe_dump(document))
    document = yaml.safe_load((CHECKOUT / "studies/params.yaml").read_text())
    document["pipeline"] = {"datasets": ["tiny"], "studies": ["small"]}
    document["protocol"] |= {"bootstrap": 100}
    document["studies"]["small"] = {
        "summary": "Small.", "systems": ["popularity", "sasrec"], "orders": ["original"], "seeds": [0],
        "reference": "sasrec",
    }  # fmt: skip
    (root / "studies/params.yaml").write_text(yaml.safe_dump(document))
    artifacts = root / "artifacts" / "tiny"
    replace(few_splits, generation_candidates=few_splits.candidates).save(artifacts / "splits")
    torch.manual_seed(0)
    SASRec(SASRecConfig(few_splits.num_items, 8, 1, 1, 0.1, "pre", 32, "standard", 4)).save(
        artifacts / "teacher"
    )
    write_json(artifacts / "backbone" / "backbone.json", {"revision": "none", "dtype": "float32"})
    git(root, "init", "--quiet")
    monkeypatch.setenv(
        "PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return root


@pytest.mark.slow
def test_a_study_is_materialised(shop: Path, instance: dg.DagsterInstance) -> None:
    """A second run by DVC finds it up to date."""
    from orchestration.definitions import PIPELINES

    project = DvcProject(shop, external=("data",), pipelines=PIPELINES)
    assets = dvc_assets(project, {"data": "arrivals"})
    for name in ("trainings", "study"):
        done = dg.materialize(
            assets,
            selection=dg.AssetSelection.assets(name),
            partition_key="tiny-small",
            instance=instance,
            raise_on_error=False,
        )
        assert done.success, name
    (event,) = done.asset_materializations_for_node("study")
    page = shop / "reports/studies/small/tiny.html"
    assert event.metadata["page"].value == str(page)
    assert "tiny: small" in page.read_text()
    rows = pd.read_csv(page.with_suffix(".csv"))
    assert set(rows["system"]) == {"popularity", "sasrec", "chance"}
    stage = "studies/dvc.yaml:trainings@tiny-small"
    assert "didn't change, skipping" in dvc(shop, "repro", "--single-item", stage)
