"""The teacher's losses against slow sums of the formulas in specification 4.1 and 9, in float64."""

from math import exp, log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmsrec.sequential.losses import (
    binary_loss,
    full_loss,
    generalised_binary_loss,
    sampled_softmax_loss,
)

score = st.floats(-8, 8)


@st.composite
def scored(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of next items, and of the same number of negatives for each."""
    rows, count = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    positive = draw(st.lists(score, min_size=rows, max_size=rows))
    negative = draw(st.lists(score, min_size=rows * count, max_size=rows * count))
    return torch.tensor(positive).double(), torch.tensor(negative).double().view(rows, count)


def sigmoid(value: float) -> float:
    return 1 / (1 + exp(-value))


@given(scored())
def test_binary_loss_is_a_mean_for_each_sign(scores: tuple[torch.Tensor, torch.Tensor]) -> None:
    positive, negative = scores[0].tolist(), scores[1].flatten().tolist()
    slow = sum(-log(sigmoid(value)) for value in positive) / len(positive)
    slow += sum(-log(1 - sigmoid(value)) for value in negative) / len(negative)
    assert binary_loss(*scores).item() == pytest.approx(slow)


@given(scored(), st.data())
def test_full_loss_is_the_cross_entropy_of_the_catalog(
    scores: tuple[torch.Tensor, torch.Tensor], data: st.DataObject
) -> None:
    table = scores[1]
    targets = [data.draw(st.integers(0, table.shape[1] - 1)) for _ in range(len(table))]
    slow = [
        -log(exp(row[target]) / sum(map(exp, row)))
        for row, target in zip(table.tolist(), targets, strict=True)
    ]
    actual = full_loss(table, torch.tensor(targets)).item()
    assert actual == pytest.approx(sum(slow) / len(slow))


@given(scored())
def test_sampled_softmax_ranks_the_next_item_among_its_own_negatives(
    scores: tuple[torch.Tensor, torch.Tensor],
) -> None:
    slow = [
        -log(exp(positive) / (exp(positive) + sum(map(exp, negative))))
        for positive, negative in zip(scores[0].tolist(), scores[1].tolist(), strict=True)
    ]
    assert sampled_softmax_loss(*scores).item() == pytest.approx(sum(slow) / len(slow))


def test_sampled_softmax_with_all_other_items_is_the_full_loss() -> None:
    table = torch.tensor([[0.5, -1.0, 2.0], [3.0, 0.0, -0.5]], dtype=torch.float64)
    positive, negative = table[[0, 1], [1, 0]], torch.stack([table[0, [0, 2]], table[1, [1, 2]]])
    full = full_loss(table, torch.tensor([1, 0]))
    torch.testing.assert_close(sampled_softmax_loss(positive, negative), full)


@given(scored(), st.integers(10, 1000), st.floats(0, 1))
def test_gbce_weighs_the_positive_by_beta(
    scores: tuple[torch.Tensor, torch.Tensor], num_items: int, t: float
) -> None:
    """loss = -[beta log sigma(s+) + sum_k log(1 - sigma(s-))], alpha = k / (|I| - 1)."""
    alpha = scores[1].shape[1] / (num_items - 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    slow = [
        -(beta * log(sigmoid(positive)) + sum(log(1 - sigmoid(value)) for value in negative))
        for positive, negative in zip(scores[0].tolist(), scores[1].tolist(), strict=True)
    ]
    actual = generalised_binary_loss(*scores, num_items=num_items, t=t).item()
    assert actual == pytest.approx(sum(slow) / len(slow))


@given(scored(), st.integers(10, 1000))
def test_gbce_without_t_is_plain_binary_cross_entropy(
    scores: tuple[torch.Tensor, torch.Tensor], num_items: int
) -> None:
    """beta = 1: the positive counts once, and so does each negative, however many items there are."""
    positive, negative = scores
    actual = generalised_binary_loss(positive, negative, num_items, t=0.0)
    none = torch.full_like(negative, -1e9)  # a negative that costs nothing
    positives_only = binary_loss(positive, none)
    torch.testing.assert_close(
        actual,
        positives_only + negative.shape[1] * (binary_loss(positive, negative) - positives_only),
    )
    single = generalised_binary_loss(positive, negative[:, :1], num_items, t=0.0)
    torch.testing.assert_close(single, binary_loss(positive, negative[:, :1]))


@pytest.mark.parametrize(("bought", "of"), [(4, 20), (8, 16), (2, 10)])
def test_gbce_with_t_one_is_least_at_the_true_probability(bought: int, of: int) -> None:
    """The cure for overconfidence: one negative of four others, so an item that was not next is drawn in 1 of 4.

    Plain BCE (t = 0) wants a sigmoid four times too sure in odds; with t = 1 it is bought / of."""
    drawn = (of - bought) // 4
    for t, odds in ((1.0, 1.0), (0.0, 4.0)):
        ratio = odds * bought / (of - bought)
        scored_item = torch.tensor(log(ratio), dtype=torch.float64, requires_grad=True)
        others = torch.zeros(of, dtype=torch.float64)
        positive = torch.cat([scored_item.expand(bought), others[bought:]])
        negative = torch.cat([scored_item.expand(drawn), others[drawn:]])[:, None]
        generalised_binary_loss(positive, negative, num_items=5, t=t).backward()
        assert scored_item.grad is not None
        assert scored_item.grad.item() == pytest.approx(0, abs=1e-12)


def test_scores_of_any_size_give_finite_losses_and_gradients() -> None:
    positive = torch.tensor([1e4, -1e4], requires_grad=True)
    negative = torch.tensor([[1e4, 0.0], [0.0, -1e4]], requires_grad=True)
    losses = [
        binary_loss(positive, negative),
        sampled_softmax_loss(positive, negative),
        generalised_binary_loss(positive, negative, 100, 0.75),
        full_loss(negative, torch.tensor([1, 0])),
    ]
    for loss in losses:
        assert loss.isfinite()
        for gradient in torch.autograd.grad(loss, (positive, negative), allow_unused=True):
            assert gradient is None or gradient.isfinite().all()
