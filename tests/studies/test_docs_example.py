"""The system of docs/systems.md, read from the page, does what the page says."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmsrec.comparison.config import Arm, ComparisonConfig, arms_of
from llmsrec.comparison.run import Store, outcome_of
from llmsrec.core.config import load_section
from llmsrec.evaluation.per_user import METRICS, EvaluationConfig
from llmsrec.systems import registry

PAGE = Path(__file__).parents[2] / "docs" / "systems.md"


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    return found


@pytest.fixture
def added(project: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]) -> Any:
    """The page's own steps: a file, a line of the registry, two of params.yaml."""
    file = project / "last_item.py"
    file.write_text(block("python"))
    spec = importlib.util.spec_from_file_location("last_item", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "last_item", module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(registry.RETRIEVAL, "last_item", registry.own(module.LastItem))
    change(**yaml.safe_load(block("yaml")))
    return module


def test_the_system_of_the_page_learns_what_follows_what(added: Any) -> None:
    assert len(block("python").splitlines()) < 100
    config = load_section(ComparisonConfig, "comparison")
    evaluation = load_section(EvaluationConfig, "evaluation")
    artifacts, scratch = Path("artifacts/tiny"), Path("scratch/tiny")
    store = Store(artifacts, scratch, Path("params.yaml"), config, evaluation)
    assert Arm("last_item", "retrieval", "original", 0) in arms_of(config)
    at = METRICS.index("ndcg@10")
    last, popular = (
        outcome_of(store, Arm(system, "retrieval", "original", 0))
        for system in ("last_item", "popularity")
    )
    quality = {name: values[:, at].mean() for name, values in last.values.items() if "full" in name}
    assert quality["original_full"] > 2 * popular.values["original_full"][:, at].mean()
    assert quality["shuffled_full"] < 0.8 * quality["original_full"]
    assert last.values["similarity"].mean() < 0.9
    assert last.facts["parameters"] == 2 * (store.splits.num_items + 1) * 16
