"""The system of docs/systems.md, read from the page, does what the page says."""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from llmsrec.evaluation.per_user import METRICS
from llmsrec.systems import registry
from studies.config import Run, Settings
from studies.training import StudyDataset

PAGE = Path(__file__).parents[2] / "docs" / "systems.md"


def block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    return text


@pytest.fixture
def added(project: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]) -> None:
    """The page's own steps: a file, a line of the registry, two of studies/params.yaml."""
    file = project / "last_item.py"
    file.write_text(block("python"))
    spec = importlib.util.spec_from_file_location("last_item", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "last_item", module)
    spec.loader.exec_module(module)
    system = registry.with_own_settings(module.LastItem)
    monkeypatch.setitem(registry.SYSTEMS, "last_item", system)
    change(**yaml.safe_load(block("yaml")))


@pytest.mark.usefixtures("added")
def test_the_system_in_the_docs_learns_transitions() -> None:
    assert len(block("python").splitlines()) < 100
    settings = Settings()
    data, study = StudyDataset("tiny", settings), settings.study("baselines", {})
    results = data.evaluate(study.runs)
    last, popular = (results[Run(name, "original", 0)] for name in ("last_item", "popularity"))
    at = METRICS.index("ndcg@10")
    quality = {name: values[:, at].mean() for name, values in last.values.items() if "full" in name}
    assert quality["original_full"] > 2 * popular.values["original_full"][:, at].mean()
    assert quality["shuffled_full"] < 0.8 * quality["original_full"]
    assert last.values["similarity"].mean() < 0.9
    assert last.facts["parameters"] == 2 * (data.splits.num_items + 1) * 16
