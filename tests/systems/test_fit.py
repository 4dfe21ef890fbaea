"""Every system is fitted by the same code: once, to the same numbers, and on from where it was interrupted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from llmsrec.data.splits import Splits
from llmsrec.errors import ConfigError
from llmsrec.systems.fit import fitted, num_trained
from llmsrec.systems.registry import system_of
from llmsrec.systems.system import Given
from llmsrec.teacher.sasrec import SASRec, SASRecConfig
from llmsrec.teacher.train import train_teacher
from llmsrec.training import Checkpoints, MetricLog

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def params(tmp_path: Path) -> Path:
    """params.yaml with short trainings."""
    document = yaml.safe_load(PARAMS.read_text())
    document["teacher"] |= {"epochs": 2, "validate_every": 1, "embedding_size": 16}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    return tmp_path / "params.yaml"


@pytest.fixture
def given(markov_splits: Splits) -> Given:
    teacher = SASRec(
        SASRecConfig(markov_splits.num_items, 16, 1, 1, 0.1, "pre", 32, "standard")
    ).eval()
    return Given(markov_splits, teacher, Path("none"), seed=3)


def test_sasrec_as_a_system_is_the_teacher(params: Path, given: Given, tmp_path: Path) -> None:
    """The same seed gives the same bits through either door."""
    system = system_of("sasrec", "retrieval", params)
    network = fitted(system, given, tmp_path / "out", tmp_path / "scratch", "key")
    config = replace(system.config, seed=given.seed)  # type: ignore[attr-defined]
    teacher = train_teacher(given.splits, config, MetricLog(), Checkpoints(None, ""))
    assert network.digest == teacher.digest
    assert num_trained(network) == sum(part.numel() for part in teacher.parameters())


def test_what_is_fitted_is_found_again(params: Path, given: Given, tmp_path: Path) -> None:
    system = system_of("gsasrec", "retrieval", params)
    first = fitted(system, given, tmp_path / "out", tmp_path / "scratch", "key")
    torch.manual_seed(9)
    again = fitted(system, given, tmp_path / "out", tmp_path / "nothing", "key")
    assert again.digest == first.digest
    assert not (tmp_path / "nothing").exists()


def test_what_only_counts_has_nothing_to_train(params: Path, given: Given, tmp_path: Path) -> None:
    network = fitted(
        system_of("popularity", "retrieval", params), given, tmp_path / "out", tmp_path, "key"
    )
    assert num_trained(network) == 0


def test_an_unknown_system_is_named(params: Path) -> None:
    with pytest.raises(ConfigError, match="no system 'deep' for retrieval; there are: popularity"):
        system_of("deep", "retrieval", params)
