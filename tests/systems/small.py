"""Small systems: the project's parameters with short trainings, and their inputs."""

from pathlib import Path
from typing import Any

import torch
import yaml

from llmsrec.core.config import SEEDED
from llmsrec.data.splits import Splits
from llmsrec.sequential.sasrec import SASRec, SASRecConfig
from llmsrec.systems.registry import system_of
from llmsrec.systems.system import TrainingInput

ROOT = Path(__file__).parents[2]
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
    "llm2sasrec": {"max_tokens": 16},
    "llm2esasrec": {"max_tokens": 16, "negatives": 8},
    "ctrl": {"max_tokens": 16, "align_epochs": 2, "align_rate": 0.003},
}  # fmt: skip


def parameters() -> dict[str, Any]:
    """All sections of params.yaml and studies/params.yaml."""
    files = [ROOT / "params.yaml", ROOT / "studies/params.yaml"]
    first, second = (yaml.safe_load(file.read_text()) for file in files)
    for name in SEEDED:
        first[name]["seed"] = first["seed"]
    return {**first, **second}


def system_from(document: dict[str, Any], name: str) -> Any:
    """The variant with the settings of these sections."""
    values = dict(document["systems"][name])
    system = values.pop("system", name)
    return system_of(system, values, document.__getitem__, f"systems.{name}")


def small_system(name: str, teacher: dict[str, Any] | None = None, **own: Any) -> Any:
    """The system with short trainings; `teacher` changes the section of that name, `own` its own settings."""
    document = parameters()
    shorter = TEACHER | (teacher or {})
    document["teacher"] |= shorter
    entry = document["systems"][name]
    entry |= {key: value for key, value in shorter.items() if key in entry}
    entry |= SYSTEMS.get(name, {}) | own
    return system_from(document, name)


def small_inputs(splits: Splits, backbone: Path, seed: int = 3) -> TrainingInput:
    torch.manual_seed(0)
    config = SASRecConfig(splits.num_items, 16, 1, 1, 0.1, "pre", 32, "standard", 4)
    return TrainingInput(splits, SASRec(config).eval(), backbone, seed)
