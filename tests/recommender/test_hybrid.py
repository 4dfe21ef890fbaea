"""Weighted sums of rankers, and their weights against independent computations."""

import numpy as np
import pytest
from scipy.special import log_softmax

from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import MarkovChain, Popularity
from llmsrec.ranking.ranker import Ranker
from llmsrec.recommender import hybrid
from llmsrec.recommender.hybrid import (
    HybridRanker,
    ScoredUsers,
    fit_weights,
    log_likelihood,
    score_users,
)


class Constant(Ranker):
    """The same scores for every user."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = np.array(scores, dtype=np.float32)

    def score(self, histories: Sequences) -> np.ndarray:
        return np.tile(self.scores, (len(histories), 1))


class Fails(Ranker):
    def score(self, histories: Sequences) -> np.ndarray:
        raise AssertionError("a part of weight 0 is computed")


@pytest.fixture
def parts(markov_splits: Splits) -> dict[str, Ranker]:
    return {"markov": MarkovChain(markov_splits), "popularity": Popularity(markov_splits)}


def test_a_hybrid_is_the_weighted_sum(markov_splits: Splits, parts: dict[str, Ranker]) -> None:
    histories = markov_splits.histories("test")
    both = HybridRanker(
        {**parts, "none": Fails()}, {"none": 0.0, "markov": 2.0, "popularity": 0.25}
    )
    expected = 2 * parts["markov"].score(histories) + 0.25 * parts["popularity"].score(histories)
    np.testing.assert_allclose(both.score(histories), expected, rtol=1e-6)


def likelihood(splits: Splits, parts: dict[str, Ranker], weights: dict[str, float]) -> float:
    """The mean log-likelihood of the validation targets, user by user."""
    histories, targets = splits.histories("valid"), splits.candidates["valid"].targets
    scores = sum(weights[name] * ranker.score(histories) for name, ranker in parts.items())
    total = 0.0
    for user, target in enumerate(targets):
        allowed = np.setdiff1d(np.arange(1, splits.num_items + 1), histories[user]).tolist()
        allowed = sorted({*allowed, int(target)})
        total += log_softmax(scores[user, allowed].astype(float))[allowed.index(target)]
    return total / len(targets)


def test_the_weights_are_the_most_likely_ones(
    markov_splits: Splits, parts: dict[str, Ranker]
) -> None:
    weights = fit_weights(score_users(parts, markov_splits, "valid", seed=0))
    best = likelihood(markov_splits, parts, weights)
    for name in parts:
        for factor in (0.9, 1.1):
            changed = {**weights, name: weights[name] * factor + 1e-4}
            assert likelihood(markov_splits, parts, changed) < best + 1e-9
    assert best > likelihood(markov_splits, parts, dict.fromkeys(parts, 0.0)) + 0.5


def test_the_gradient_is_that_of_the_loss(markov_splits: Splits, parts: dict[str, Ranker]) -> None:
    scored = score_users(parts, markov_splits, "valid", seed=0)
    scale = np.array([0.5, 0.01])
    for point in (np.array([0.1, 0.001]), np.array([1.0, 0.02])):
        loss, gradient = hybrid._loss(scored, point, scale)
        for part in range(2):
            step = np.eye(2)[part] * scale * 1e-2
            slope = hybrid._loss(scored, point + step, scale)[0]
            slope -= hybrid._loss(scored, point - step, scale)[0]
            assert gradient[part] == pytest.approx(slope / 2e-2, rel=0.01, abs=1e-4)
        weights = dict(zip(parts, point.tolist(), strict=True))
        assert loss == pytest.approx(-likelihood(markov_splits, parts, weights), rel=1e-5)
        assert log_likelihood(scored, weights) == pytest.approx(-loss)


def test_a_part_that_ranks_targets_low_gets_weight_zero() -> None:
    draws, users = np.random.default_rng(0), np.arange(200)
    scores, targets = draws.normal(size=(2, 200, 8)), draws.integers(1, 8, size=200)
    scores[0, users, targets] += 1.0
    scores[1, users, targets] -= 1.0
    padding = (users, np.zeros(200, dtype=np.int64))
    scored = ScoredUsers(["good", "bad"], scores.astype(np.float32), padding, targets)
    weights = fit_weights(scored)
    assert weights["bad"] == 0
    assert weights["good"] > 0.5


def test_a_constant_part_changes_nothing(markov_splits: Splits, parts: dict[str, Ranker]) -> None:
    constant = Constant([3.0] * (markov_splits.num_items + 1))
    scored = score_users({**parts, "constant": constant}, markov_splits, "valid", seed=0)
    weights, alone = fit_weights(scored), fit_weights(scored.only(list(parts)))
    assert np.isfinite(list(weights.values())).all()
    assert weights["markov"] == pytest.approx(alone["markov"], rel=0.02)


def test_a_single_part_has_weight_one(markov_splits: Splits, parts: dict[str, Ranker]) -> None:
    scored = score_users(parts, markov_splits, "valid", seed=0)
    assert fit_weights(scored.only(["popularity"])) == {"popularity": 1.0}


def test_few_scores_are_kept_in_memory(
    monkeypatch: pytest.MonkeyPatch, markov_splits: Splits, parts: dict[str, Ranker]
) -> None:
    monkeypatch.setattr(hybrid, "MAX_SCORES", 20 * 2 * (markov_splits.num_items + 1))
    scored = score_users(parts, markov_splits, "valid", seed=0)
    assert scored.scores.shape == (2, 20, markov_splits.num_items + 1)
    again = score_users(parts, markov_splits, "valid", seed=0)
    np.testing.assert_array_equal(scored.targets, again.targets)
