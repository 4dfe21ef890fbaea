"""Systems in small: params.yaml with short trainings, and what they are given."""

from pathlib import Path
from typing import Any

import torch
import yaml

from llmsrec.data.splits import Splits
from llmsrec.sequential.sasrec import SASRec, SASRecConfig
from llmsrec.systems.registry import system_of
from llmsrec.systems.system import TrainingInput

PARAMS = Path(__file__).parents[2] / "params.yaml"
TEACHER = {
    "epochs": 2, "validate_every": 1, "embedding_size": 16, "max_length": 10, "batch_size": 64,
    "num_blocks": 1, "validation_users": 50, "learning_rate": 0.01, "patience": 10,
}  # fmt: skip
SYSTEMS: dict[str, dict[str, Any]] = {
    "gsasrec": {"negatives": 4},
    "esasrec": {"negatives": 8},
    "nextitnet": {"repeats": 1},
    "bert4rec": {"epochs": 2, "validate_every": 1, "learning_rate": 0.01, "warm_up": 2, "num_blocks": 1},
    "sasrec_text": {"adapter_size": 24, "max_tokens": 16},
    "ctrl": {"max_tokens": 16, "align_epochs": 2, "align_rate": 0.003},
}  # fmt: skip


def small_system(name: str, folder: Path, teacher: dict[str, Any] | None = None, **own: Any) -> Any:
    """The system with short trainings; `teacher` changes the section of that name, `own` its own settings."""
    document = yaml.safe_load(PARAMS.read_text())
    document["teacher"] |= TEACHER | (teacher or {})
    document["systems"][name] = document["systems"][name] | SYSTEMS.get(name, {}) | own
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(document))
    return system_of(name, "retrieval", file)


def small_given(splits: Splits, backbone: Path, seed: int = 3) -> TrainingInput:
    torch.manual_seed(0)
    config = SASRecConfig(splits.num_items, 16, 1, 1, 0.1, "pre", 32, "standard")
    return TrainingInput(splits, SASRec(config).eval(), backbone, seed)
