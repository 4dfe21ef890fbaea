"""A hybrid adds the trained models of other variants: which, with which weights, and what its key covers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmsrec.core.errors import ConfigError
from llmsrec.evaluation.baselines import Popularity
from llmsrec.evaluation.per_user import METRICS
from llmsrec.ranking.metrics import ndcg
from llmsrec.ranking.protocol import evaluate
from llmsrec.recommender.hybrid import HybridRanker, fit_weights, score_users
from studies.config import Run, Settings, settings_of
from studies.training import StudyDataset
from studies.variants import parts_of, variant_of

SASREC, BOTH = Run("sasrec", "original", 0), Run("both", "original", 0)


@pytest.fixture
def data(change: Callable[..., None]) -> StudyDataset:
    """With the hybrids `both` and `twice`."""
    both = {"system": "hybrid", "parts": ["popularity", "sasrec"]}
    change(systems={"both": both, "twice": {"system": "hybrid", "parts": ["sasrec", "sasrec"]}})
    return StudyDataset("tiny", Settings())


def key_with(*changes: str, run: Run = BOTH) -> str:
    return StudyDataset("tiny", settings_of(changes)).key(run)


def test_a_hybrid_is_the_weighted_sum_of_the_trained_parts(data: StudyDataset) -> None:
    result = data.result(BOTH)
    sasrec, _ = data.model(SASREC)
    parts = {"popularity": Popularity(data.splits), "sasrec": sasrec}
    weights = fit_weights(score_users(parts, data.splits, "valid", seed=0))  # type: ignore[arg-type]
    assert result.facts["weights"] == weights
    ranks = evaluate(HybridRanker(parts, weights), data.splits, "test").full  # type: ignore[arg-type]
    assert ranks is not None
    found = result.values["original_full"][:, METRICS.index("ndcg@10")]
    np.testing.assert_array_equal(found, ndcg(ranks, 10))
    assert {"shuffled_sampled", "shuffled_full", "original_generation"} <= result.values.keys()
    assert data.result(SASREC).facts["weights"] == {}


@pytest.mark.parametrize("runs", [[SASREC, BOTH], [BOTH, SASREC]])
def test_a_part_is_trained_once(
    runs: list[Run], data: StudyDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the study asks for the part first, for the hybrid first, or for one of them."""
    data.result(runs[0])
    monkeypatch.setattr("llmsrec.systems.training.train", None)  # a second training would fail
    data.evaluate(runs)


def test_a_variant_that_is_named_twice_has_the_next_seed(data: StudyDataset) -> None:
    twice = Run("twice", "shuffled", 4)
    assert parts_of(twice, data.settings) == {
        "sasrec": Run("sasrec", "shuffled", 4),
        "sasrec (seed 5)": Run("sasrec", "shuffled", 5),
    }
    assert parts_of(SASREC, data.settings) == {}
    result = data.result(Run("twice", "original", 0))
    assert list(result.facts["weights"]) == ["sasrec", "sasrec (seed 1)"]
    weights = {file.read_bytes() for file in data.cache.glob("*/model.safetensors")}
    assert len(weights) == 3  # two trainings, and the empty network of the hybrid


@pytest.mark.usefixtures("data")
def test_the_key_of_a_hybrid_covers_its_parts() -> None:
    first = key_with()
    assert key_with() == first
    assert key_with("systems.sasrec.dropout=0.3") != first
    assert key_with("teacher.dropout=0.3") != first
    assert key_with("systems.gsasrec.dropout=0.3") == first
    assert key_with("systems.both.parts=[markov, sasrec]") != first
    assert key_with(run=Run("both", "original", 1)) != first


def test_wrong_parts_are_refused_before_the_first_training(
    data: StudyDataset, change: Callable[..., None]
) -> None:
    for parts, message in (
        (["sasrec", "both"], r"systems\.odd: 'both' is a hybrid or writes titles"),
        (["sasrec", "tallrec_generation"], "'tallrec_generation' is a hybrid or writes titles"),
        (["sasrec", "deep"], r"no systems\.deep; it has: "),
        (["sasrec"], r"at least two parts, not \['sasrec'\]"),
    ):
        change(systems={"odd": {"system": "hybrid", "parts": parts}})
        wrong = StudyDataset("tiny", Settings())
        with pytest.raises(ConfigError, match=message):
            wrong.evaluate([SASREC, Run("odd", "original", 0)])
    assert not Path("scratch").exists()


def test_a_hybrid_without_trained_parts_names_them(data: StudyDataset) -> None:
    system = variant_of("both", data.settings).system
    with pytest.raises(ConfigError, match="trained parts: name popularity, sasrec instead"):
        system.model(system.network(data.inputs(BOTH)), data.inputs(BOTH))
