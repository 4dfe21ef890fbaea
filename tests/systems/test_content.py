"""Item texts as systems: against the recommender's part and against cosines of one user at a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import load_backbone
from llmsrec.recommender.content import ContentRanker
from llmsrec.systems.content import CosineRanker
from llmsrec.systems.system import TrainingInput
from llmsrec.systems.text_vectors import text_vectors, whitened
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


def test_the_score_is_the_cosine_with_the_mean_of_the_last_unit_vectors() -> None:
    """Purchases 1 and 3 have the directions (1, 0) and (0.6, 0.8), whatever their lengths; their sum is (1.6, 0.8)."""
    vectors = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    ranker = CosineRanker(vectors, last=2)
    histories = from_rows([[2, 1, 3], [2], []])
    first = np.array([1.6, 0.8]) / np.hypot(1.6, 0.8)
    np.testing.assert_allclose(ranker.user_vectors(histories), [first, [0, 1], [0, 0]], rtol=1e-6)
    expected = [[0, first[0], first[1], first @ [0.6, 0.8]], [0, 0, 1, 0.8], [0, 0, 0, 0]]
    np.testing.assert_allclose(ranker.score(histories), expected, rtol=1e-6, atol=1e-7)


def test_content_lm_ranks_by_whitened_states(inputs: TrainingInput) -> None:
    system = small_system("content_lm", max_tokens=16, components=6, last=1)
    model = system.model(system.network(inputs), inputs)
    vectors = whitened(
        text_vectors(inputs.splits.catalog, load_backbone(inputs.backbone), 16), 6
    ).numpy()
    found = model.score(from_rows([[5]]))[0]
    lengths = np.linalg.norm(vectors, axis=1)
    expected = vectors[1:] @ vectors[5] / (lengths[1:] * lengths[5])
    np.testing.assert_allclose(found[1:], expected, rtol=1e-4, atol=1e-5)
    assert found.argmax() == 5
