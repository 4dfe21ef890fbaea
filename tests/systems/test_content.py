"""Item texts as systems: against the recommender's part and against cosines of one user at a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llmsrec.data.catalog import Catalog
from llmsrec.data.splits import Splits
from llmsrec.recommender.content import ContentRanker
from llmsrec.systems.system import TrainingInput
from llmsrec.systems.training import num_trained, train_system
from tests.systems.small import small_inputs, small_system


@pytest.fixture
def inputs(markov_splits: Splits, small_backbone: Path) -> TrainingInput:
    """Each item has a word of its own and one that it shares with three others."""
    items = markov_splits.catalog.items.copy()
    items["title"] = [f"thing{index} kind{index // 4}" for index in items["item_index"]]
    return small_inputs(replace(markov_splits, catalog=Catalog(items)), small_backbone)


def test_content_is_the_part_of_the_recommender(inputs: TrainingInput, tmp_path: Path) -> None:
    system = small_system("content", last=3)
    network = train_system(system, inputs, tmp_path / "out", tmp_path / "scratch", "key")
    assert num_trained(network) == 0
    histories = inputs.splits.histories("test")
    expected = ContentRanker.fit(inputs.splits.catalog, 3).score(histories)
    np.testing.assert_array_equal(system.model(network, inputs).score(histories), expected)
    assert expected.any()
