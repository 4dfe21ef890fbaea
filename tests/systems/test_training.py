"""Every system is fitted by the same code: once, to the same numbers, and on from where it was interrupted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from llmsrec.core.errors import ConfigError
from llmsrec.data.splits import Splits
from llmsrec.sequential.trainer import train_teacher
from llmsrec.systems.registry import system_of
from llmsrec.systems.system import TrainingInput
from llmsrec.systems.training import num_trained, train_system
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.loop import MetricLog
from tests.systems.small import parameters, small_inputs, small_system, system_from


@pytest.fixture
def inputs(markov_splits: Splits) -> TrainingInput:
    return small_inputs(markov_splits, Path("none"))


def test_sasrec_as_a_system_is_the_teacher(inputs: TrainingInput, tmp_path: Path) -> None:
    """The same seed gives the same bits by either function."""
    system = small_system("sasrec")
    network = train_system(system, inputs, tmp_path / "out", tmp_path / "scratch", "key")
    config = replace(system.config, seed=inputs.seed)  # type: ignore[attr-defined]
    teacher = train_teacher(inputs.splits, config, MetricLog(), Checkpoints(None, ""))
    assert network.digest == teacher.digest
    assert num_trained(network) == sum(part.numel() for part in teacher.parameters())


def test_a_fitted_system_is_loaded_and_not_trained_again(
    inputs: TrainingInput, tmp_path: Path
) -> None:
    system = small_system("gsasrec")
    first = train_system(system, inputs, tmp_path / "out", tmp_path / "scratch", "key")
    torch.manual_seed(9)
    again = train_system(system, inputs, tmp_path / "out", tmp_path / "nothing", "key")
    assert again.digest == first.digest
    assert not (tmp_path / "nothing").exists()


def test_counting_systems_have_no_training(inputs: TrainingInput, tmp_path: Path) -> None:
    popularity = small_system("popularity")
    network = train_system(popularity, inputs, tmp_path / "out", tmp_path / "scratch", "key")
    assert num_trained(network) == 0


def test_an_unknown_system_is_named() -> None:
    with pytest.raises(ConfigError, match="no system 'deep'; there are: popularity"):
        system_of("deep", {}, parameters().__getitem__, "systems.deep")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("tallrec_generation", {"score": "guess"}, "score is 'guess'; choose from greedy"),
        ("llmsrec", {"mode": "generation"}, "mode is 'generation'; choose from retrieval"),
        ("llara", {"schedule": "two_stage"}, "schedule is 'two_stage'; choose from joint, curriculum"),
        ("allmrec", {"alignment": {}}, "alignment.text_encoder is missing"),
        ("tallrec", {"lora": {}}, "lora.rank is missing"),
    ],
)  # fmt: skip
def test_a_wrong_setting_of_a_language_model_is_named(
    name: str, values: dict[str, Any], message: str
) -> None:
    document = parameters()
    document["systems"][name] |= values
    with pytest.raises(ConfigError, match=message):
        system_from(document, name)
