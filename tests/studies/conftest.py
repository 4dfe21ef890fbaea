"""A small dataset for studies, and a system that writes its answers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from llmsrec.core.files import write_json
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.sequential.sasrec import SASRec, SASRecConfig
from llmsrec.systems import registry
from llmsrec.systems.system import Stage, TrainingInput
from llmsrec.training.loop import TrainingPlan

ROOT = Path(__file__).parents[2]
FILES = ("params.yaml", "studies/params.yaml")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, markov_splits: Splits) -> Path:
    """Splits, a teacher and a backbone's reference, as the pipeline writes them; read only."""
    folder = tmp_path_factory.mktemp("studies") / "tiny"
    splits = replace(markov_splits, generation_candidates=markov_splits.candidates)
    splits.save(folder / "splits")
    torch.manual_seed(0)
    SASRec(SASRecConfig(splits.num_items, 16, 1, 1, 0.1, "pre", 32, "standard", 4)).save(
        folder / "teacher"
    )
    write_json(folder / "backbone" / "backbone.json", {"revision": "none", "dtype": "float32"})
    return folder


Change = Callable[..., None]


@pytest.fixture
def project(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with short trainings, few resamples, the dataset `tiny`, and the study `small`."""
    (tmp_path / "studies").mkdir()
    for name in FILES:
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "artifacts" / "tiny").mkdir(parents=True)
    for part in ("splits", "teacher", "backbone"):
        (tmp_path / "artifacts" / "tiny" / part).symlink_to(dataset / part)
    monkeypatch.chdir(tmp_path)
    change_sections(teacher={"epochs": 2, "validate_every": 1, "embedding_size": 8})
    change_sections(protocol={"bootstrap": 200, "generation_users": 100})
    small = {"summary": "", "systems": ["popularity", "sasrec"], "reference": "sasrec"}
    change_sections(studies={"small": {**small, "orders": ["original"], "seeds": [0]}})
    return tmp_path


def change_sections(**sections: dict[str, Any]) -> None:
    """Change keys of sections in the parameter files of the working directory."""
    for name in FILES:
        document = yaml.safe_load(Path(name).read_text())
        for section, values in sections.items():
            if section in document:
                document[section] |= values
        Path(name).write_text(yaml.safe_dump(document))


@pytest.fixture
def change(project: Path) -> Change:
    return change_sections


class Half(nn.Module):
    """A number that moves by one at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros(1))


class Counting:
    """The trainer of it."""

    steps_per_epoch = 2

    def __init__(self, network: Half) -> None:
        self.network = network

    def step(self, step: int) -> dict[str, float]:
        with torch.no_grad():
            self.network.number += 1
        return {"loss": 1.0 / (step + 1)}

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])


@dataclass(frozen=True)
class Writer:
    """Names the right title where the row is even, none where it divides by three, else the first."""

    steps: int

    def network(self, inputs: TrainingInput) -> nn.Module:
        return Half()

    def stages(self, network: Any, inputs: TrainingInput) -> Iterator[Stage]:
        def validate() -> dict[str, float]:
            return {"hr@1": network.number.item()}

        yield Stage(Counting(network), TrainingPlan("writer", validate, [1, self.steps], 5, "hr@1"))

    def model(self, network: Any, inputs: TrainingInput) -> "Writing":
        return Writing(inputs.splits)


class Writing:
    calls: int = 0  # of all

    def __init__(self, splits: Splits) -> None:
        drawn = splits.generation_candidates["test"]
        self.right = {
            row.tobytes(): column
            for row, column in zip(drawn.items, drawn.target_columns, strict=True)
        }

    def answers(self, histories: Sequences, candidates: np.ndarray) -> np.ndarray:
        Writing.calls += 1
        right = np.array([self.right[row.tobytes()] for row in candidates])
        last = np.array([histories[row][-1] for row in range(len(histories))])
        return np.where(last % 3 == 0, -1, np.where(last % 2 == 0, right, 0))


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch, change: Change) -> type[Writing]:
    """The class of the writer's models; the writer is a variant of its own."""
    monkeypatch.setitem(registry.SYSTEMS, "writer", registry.with_own_settings(Writer))
    change(systems={"writer": {"steps": 2}})
    Writing.calls = 0
    return Writing
