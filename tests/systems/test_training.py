"""Every system is fitted by the same code: once, to the same numbers, and on from where it was interrupted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from llmsrec.core.errors import ConfigError
from llmsrec.data.splits import Splits
from llmsrec.sequential.trainer import train_teacher
from llmsrec.systems.registry import system_of
from llmsrec.systems.system import TrainingInput
from llmsrec.systems.training import num_trained, train_system
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.loop import MetricLog
from tests.systems.small import PARAMS, small_given, small_system


@pytest.fixture
def given(markov_splits: Splits) -> TrainingInput:
    return small_given(markov_splits, Path("none"))


def test_sasrec_as_a_system_is_the_teacher(given: TrainingInput, tmp_path: Path) -> None:
    """The same seed gives the same bits through either door."""
    system = small_system("sasrec", tmp_path)
    network = train_system(system, given, tmp_path / "out", tmp_path / "scratch", "key")
    config = replace(system.config, seed=given.seed)  # type: ignore[attr-defined]
    teacher = train_teacher(given.splits, config, MetricLog(), Checkpoints(None, ""))
    assert network.digest == teacher.digest
    assert num_trained(network) == sum(part.numel() for part in teacher.parameters())


def test_what_is_fitted_is_found_again(given: TrainingInput, tmp_path: Path) -> None:
    system = small_system("gsasrec", tmp_path)
    first = train_system(system, given, tmp_path / "out", tmp_path / "scratch", "key")
    torch.manual_seed(9)
    again = train_system(system, given, tmp_path / "out", tmp_path / "nothing", "key")
    assert again.digest == first.digest
    assert not (tmp_path / "nothing").exists()


def test_what_only_counts_has_nothing_to_train(given: TrainingInput, tmp_path: Path) -> None:
    popularity = small_system("popularity", tmp_path)
    network = train_system(popularity, given, tmp_path / "out", tmp_path / "scratch", "key")
    assert num_trained(network) == 0


def test_an_unknown_system_is_named() -> None:
    with pytest.raises(ConfigError, match="no system 'deep' for retrieval; there are: popularity"):
        system_of("deep", "retrieval", PARAMS)


@pytest.mark.parametrize(
    ("mode", "name", "changes", "said"),
    [
        ("generation", "language", {"generation": {"score": "guess"}}, "score is 'guess'; choose from greedy"),
        ("retrieval", "allmrec", {}, "alignment.text_encoder is missing"),
        ("retrieval", "llara", {"schedule": "two_stage"}, "schedule is 'two_stage'; choose from joint, curriculum"),
        ("retrieval", "tallrec", {}, "lora.rank is missing"),
    ],
)  # fmt: skip
def test_a_wrong_setting_of_a_language_model_is_named(
    tmp_path: Path, mode: Any, name: str, changes: dict[str, Any], said: str
) -> None:
    document = yaml.safe_load(PARAMS.read_text())
    systems = document["systems"]
    systems[name] = systems[name] | changes if changes else {}
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=said):
        system_of("tallrec" if name == "language" else name, mode, file)
