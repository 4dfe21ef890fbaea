"""GRU4Rec's losses against loops over the formulas, and the faults of third-party versions (SPEC 4.2)."""

from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmsrec.core.errors import ConfigError
from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Splits
from llmsrec.sequential.losses import full_loss
from llmsrec.sequential.network import PositionBatch
from llmsrec.systems.gru4rec import GRU4Rec, GRU4RecConfig, GRU4RecLoss, bpr_max_loss
from tests.systems.small import small_inputs, small_system

TRAIN = from_rows(
    [[1, 2, 3, 1], [1, 2], [1, 4], [2, 5, 1]]
)  # purchases of 1 to 6: 5, 3, 1, 1, 1, 0


def config(folder: Path, **changes: Any) -> GRU4RecConfig:
    found = small_system("gru4rec", **changes).config
    assert isinstance(found, GRU4RecConfig)
    return found


def lessons(model: GRU4Rec, targets: list[int], scale: float = 1.0) -> PositionBatch:
    torch.manual_seed(2)
    states = scale * torch.randn(len(targets), model.embedding_size)
    return PositionBatch(states, torch.tensor(targets), np.arange(len(targets)))


def shaken(config: GRU4RecConfig) -> GRU4Rec:
    torch.manual_seed(1)
    model = GRU4Rec(config, 6)
    with torch.no_grad():
        model.bias.normal_()
    return model


def slow_bpr_max(
    positive: list[float], negative: list[list[float]], other: list[list[bool]], weight: float
) -> float:
    """The softmax is of the negatives alone: with the positive in it, learning would push itself out."""
    total = 0.0
    for own, row, allowed in zip(positive, negative, other, strict=True):
        scores = [score for score, may in zip(row, allowed, strict=True) if may]
        whole = sum(exp(score) for score in scores)
        shares = [exp(score) / whole for score in scores]
        won = sum(w / (1 + exp(r - own)) for w, r in zip(shares, scores, strict=True))
        size = sum(w * r**2 for w, r in zip(shares, scores, strict=True))
        total += -log(won) + weight * size
    return total / len(positive)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_bpr_max_is_the_formula(weight: float) -> None:
    """With the score regulariser, and on scores well outside of what tanh lets through."""
    torch.manual_seed(0)
    positive, negative = 3 * torch.randn(4), 3 * torch.randn(4, 6)
    other = torch.rand(4, 6) < 0.8
    found = bpr_max_loss(positive, negative, other, weight)
    slow = slow_bpr_max(positive.tolist(), negative.tolist(), other.tolist(), weight)
    assert found.item() == pytest.approx(slow, rel=1e-5)


def test_a_higher_positive_always_lowers_bpr_max() -> None:
    """Were it in its own softmax, its gradient would vanish or turn where it wins."""
    negative = torch.tensor([[1.0, -2.0, 0.5]])
    other = torch.ones(1, 3, dtype=torch.bool)
    for score in (-5.0, 0.0, 3.0, 8.0):
        positive = torch.tensor([score], requires_grad=True)
        (gradient,) = torch.autograd.grad(bpr_max_loss(positive, negative, other, 1.0), positive)
        assert gradient.item() < 0


def test_the_loss_is_finite_if_all_negatives_are_the_target() -> None:
    found = bpr_max_loss(torch.tensor([1.0]), torch.ones(1, 2), torch.zeros(1, 2) > 0, 1.0)
    assert found.isfinite()


def test_cross_entropy_takes_scores_as_they_are(tmp_path: Path) -> None:
    """No tanh before the loss: scores of 30 and more come through, bias included."""
    made = config(tmp_path)
    model = shaken(made)
    known = lessons(model, [1, 2, 5, 4], scale=100.0)
    found = GRU4RecLoss(made, TRAIN, 6)(model, known, np.random.default_rng(0))
    scores = (known.states @ model.item_embedding.weight.T + model.bias)[:, 1:]
    assert scores.abs().max() > 30
    torch.testing.assert_close(found, full_loss(scores, known.targets - 1))


@pytest.mark.parametrize("logq", [0.0, 1.0, 0.5])
def test_sampled_cross_entropy_corrects_for_sampling_probability(
    tmp_path: Path, logq: float
) -> None:
    made = config(tmp_path, negatives=5, alpha=0.5, logq=logq)
    model, loss = shaken(made), GRU4RecLoss(made, TRAIN, 6)
    known = lessons(model, [1, 2, 5])
    drawn = loss._draw(np.random.default_rng(7)).tolist()
    found = loss(model, known, np.random.default_rng(7)).item()
    powers = np.sqrt([5, 3, 1, 1, 1, 0]).tolist()
    total, slow = sum(powers), 0.0
    for state, target in zip(known.states, known.targets.tolist(), strict=True):

        def corrected(item: int, state: torch.Tensor = state) -> float:
            score = (state @ model.item_embedding.weight[item] + model.bias[item]).item()
            return score - logq * log(powers[item - 1] / total)

        rivals = [corrected(item) for item in drawn if item != target]
        own = corrected(target)
        slow += log(sum(exp(score) for score in [own, *rivals])) - own
    assert found == pytest.approx(slow / 3, rel=1e-4)


def test_negatives_come_by_popularity_to_the_power_alpha(tmp_path: Path) -> None:
    for alpha in (0.0, 0.5, 1.0):
        made = config(tmp_path, negatives=60_000, alpha=alpha)
        drawn = GRU4RecLoss(made, TRAIN, 6)._draw(np.random.default_rng(0)).numpy()
        expected = np.array([5, 3, 1, 1, 1, 0.0]) ** alpha
        found = np.bincount(drawn, minlength=7)
        assert found[0] == 0
        np.testing.assert_allclose(found[1:] / 60_000, expected / expected.sum(), atol=0.01)


def test_bpr_max_without_negatives_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set negatives above 0"):
        config(tmp_path, loss="bpr_max")


def test_dropout_applies_to_input_and_output(
    tmp_path: Path, markov_splits: Splits, small_backbone: Path
) -> None:
    rows = torch.tensor([[1, 2, 3, 4]])
    for changes in ({"embedding_dropout": 0.5}, {"hidden_dropout": 0.5}):
        none = {"embedding_dropout": 0.0, "hidden_dropout": 0.0}
        system = small_system("gru4rec", **(none | changes))
        model = system.network(small_inputs(markov_splits, small_backbone))
        calm = model.eval()(rows)
        assert torch.equal(model(rows), calm)
        assert not torch.allclose(model.train()(rows), calm, atol=1e-3)
