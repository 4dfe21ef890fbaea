"""Sampled scores and their gradients against gathered vectors."""

import pytest
import torch

from llmsrec.sequential import sampled_scores as module
from llmsrec.sequential.sampled_scores import sampled_scores


@pytest.mark.parametrize("held", [1, 3 * 4 * 5, 1 << 18])
def test_scores_and_gradients_are_those_of_gathered_vectors(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows are gathered at a time; items repeat within a row and between rows."""
    monkeypatch.setattr(module, "GATHERED_VALUES", held)
    draws = torch.Generator().manual_seed(0)
    states = torch.randn(7, 5, generator=draws, dtype=torch.float64, requires_grad=True)
    table = torch.randn(9, 5, generator=draws, dtype=torch.float64, requires_grad=True)
    items = torch.randint(0, 8, (7, 4), generator=draws)  # the last row of the table occurs nowhere
    items[2] = items[2, 0]
    weights = torch.randn(7, 4, generator=draws, dtype=torch.float64)
    slow = (states[:, None] * table[items]).sum(dim=-1)
    fast = sampled_scores(states, table, items)
    torch.testing.assert_close(fast, slow)
    expected = torch.autograd.grad((slow * weights).sum(), (states, table))
    found = torch.autograd.grad((fast * weights).sum(), (states, table))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert (found[1][8] == 0).all()


def test_an_empty_batch_has_no_scores() -> None:
    table = torch.ones(3, 5, requires_grad=True)
    scores = sampled_scores(torch.ones(0, 5), table, torch.zeros(0, 4, dtype=torch.int64))
    scores.sum().backward()
    assert scores.shape == (0, 4)
    assert table.grad is not None
    assert (table.grad == 0).all()
