"""The embedded backbone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmsrec.backbones.small import build_small
from llmsrec.core.config import load_section
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import BackboneConfig


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_threads_do_not_change_the_weights(markov_splits: Splits, tmp_path: Path) -> None:
    """Many tokens add to the gradient of one row of the table, in an order that threads would decide."""
    torch.use_deterministic_algorithms(False)
    section = vars(load_section(BackboneConfig, "backbone"))
    config = BackboneConfig(**{**section, "num_layers": 1, "vocabulary_size": 300, "steps": 6})
    for name in ("one", "two"):
        build_small(markov_splits.catalog, config, tmp_path / name)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
