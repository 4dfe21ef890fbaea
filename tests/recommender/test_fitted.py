"""The artifact of the recommender, and which rows it gives the evaluation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llmsrec.core.config import from_mapping
from llmsrec.core.errors import ArtifactError, ConfigError
from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import MarkovChain, Popularity
from llmsrec.recommender.fitted import FittedRecommender, RecommenderConfig
from llmsrec.recommender.hybrid import HybridRanker

FITTED = FittedRecommender(
    weights={"teacher": 0.5, "student": 2.0, "content": 1.0},
    without_student={"teacher": 0.75, "content": 1.0},
    content_last=5,
    item_vectors=np.arange(6, dtype=np.float32).reshape(3, 2),
    purchases=np.array([0, 3, 4]),
    latest=7,
    student="abc",
)


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    FITTED.save(tmp_path / "recommender")
    loaded = FittedRecommender.load(tmp_path / "recommender")
    np.testing.assert_array_equal(loaded.item_vectors, FITTED.item_vectors)
    np.testing.assert_array_equal(loaded.purchases, FITTED.purchases)
    arrays = {"item_vectors": FITTED.item_vectors, "purchases": FITTED.purchases}
    assert vars(replace(loaded, **arrays)) == vars(FITTED)


def test_changed_vectors_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "recommender"
    FITTED.save(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(ArtifactError, match=r"does not match config\.json"):
        FittedRecommender.load(folder)


def test_rows_of_the_evaluation_by_parts(markov_splits: Splits) -> None:
    """Neither row for a single part; no row without the student where it is no part."""
    parts = {name: Popularity(markov_splits) for name in ("teacher", "student", "content")}
    assert list(FITTED.hybrids(parts)) == ["recommender", "recommender_without_student"]
    alone = replace(FITTED, weights={"student": 1.0}, without_student={})
    assert alone.hybrids(parts) == {}
    without = replace(FITTED, weights=FITTED.without_student, without_student={})
    assert list(without.hybrids(parts)) == ["recommender"]


def test_weights_that_are_all_zero_score_all_items_alike(markov_splits: Splits) -> None:
    parts = {"markov": MarkovChain(markov_splits), "popularity": Popularity(markov_splits)}
    ranker = HybridRanker(parts, {"markov": 0.0, "popularity": 0.0})
    scores = ranker.score(from_rows([[1, 2], [3]]))
    assert scores.shape == (2, markov_splits.num_items + 1)
    assert not scores.any()


@pytest.mark.parametrize("parts", [[], ["teacher", "teacher"]])
def test_each_part_is_named_once(parts: list[str]) -> None:
    values = {"parts": parts, "content_last": 5, "seed": 0}
    with pytest.raises(ConfigError, match="parts must name at least one part, each once"):
        from_mapping(RecommenderConfig, values, "params.yaml: recommender")
