"""BERT4Rec: what is hidden and by what, where [MASK] stands when it is asked, and how fast it learns (SPEC 4.2)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Splits
from llmsrec.sequential.trainer import training_histories
from llmsrec.systems.bert4rec import BERT4Rec, BERT4RecConfig, ClozeTrainer, hidden
from tests.systems.small import small_system

ITEMS, MASK = 40, 41


def config(folder: Path, **changes: Any) -> BERT4RecConfig:
    found = small_system("bert4rec", **changes).config
    assert isinstance(found, BERT4RecConfig)
    return found


@pytest.fixture
def network(tmp_path: Path) -> BERT4Rec:
    torch.manual_seed(1)
    model = BERT4Rec(config(tmp_path), ITEMS)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn_like(weight)
    return model.eval()


def trainer(folder: Path, splits: Splits, **changes: Any) -> ClozeTrainer:
    made = config(folder, **changes)
    model = BERT4Rec(made, ITEMS)
    return ClozeTrainer(model, training_histories(splits, False), ITEMS, made)


def test_masked_positions_always_hold_the_mask_token(tmp_path: Path, markov_splits: Splits) -> None:
    """No random item and no item itself stands in its place; and the copies hide their last item alone."""
    block = from_rows([[3], [5, 9, 2], list(range(1, 11))]).padded()
    tokens, items = trainer(tmp_path, markov_splits, mask_share=0.5).lessons(
        block, np.random.default_rng(0)
    )
    assert torch.equal(items, torch.from_numpy(np.concatenate([block, block])))
    asked = tokens == MASK
    assert torch.equal(tokens[~asked], items[~asked])
    assert not (asked & (items == 0)).any()  # padding is never asked for
    assert (asked[:3].sum(dim=1) >= 1).all()
    last = torch.zeros_like(asked[3:])
    last[:, -1] = True
    assert torch.equal(asked[3:], last)


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_the_mask_share_is_of_real_positions_and_every_row_has_one(share: float) -> None:
    draws = np.random.default_rng(0)
    block = np.tile(np.arange(60), (2_000, 1)) - 10
    block[block < 0] = 0
    places = hidden(block, share, draws)
    assert not places[block == 0].any()
    assert places[block > 0].mean() == pytest.approx(share, abs=0.01)
    assert (hidden(np.array([[0, 0, 4]] * 50), 0.0, draws).sum(axis=1) == 1).all()


def test_the_mask_is_last_and_replaces_the_oldest_of_a_full_row(network: BERT4Rec) -> None:
    full = list(range(1, 11))
    for row, shown in (([5, 9, 2], [5, 9, 2, MASK]), (full, [*full[1:], MASK])):
        found = network.represent(from_rows([row]))[0]
        expected = network(torch.tensor([shown]))[0, -1].detach()
        torch.testing.assert_close(found, expected)
    long, cut = network.represent(from_rows([[30, *full], full]))
    torch.testing.assert_close(long, cut)


def test_states_do_not_depend_on_padding_or_batch(network: BERT4Rec) -> None:
    """Padded keys get no attention, and positions count from the end of the row."""
    rows = [[5, 9, 2], [], [7], list(range(1, 9))]
    together = network.represent(from_rows(rows))
    for number, row in enumerate(rows):
        torch.testing.assert_close(network.represent(from_rows([row]))[0], together[number])
    assert (together[1] == 0).all()
    narrow = network(torch.tensor([[5, MASK, 2]]))
    wide = network(torch.tensor([[0, 0, 0, 5, MASK, 2], [1, 2, 3, 4, MASK, 6]]))
    torch.testing.assert_close(narrow[0], wide[0, 3:])
    assert (wide[0, :3] == 0).all()


def test_attention_is_bidirectional(network: BERT4Rec) -> None:
    first, before, after = network(torch.tensor([[1, MASK, 3], [2, MASK, 3], [1, MASK, 4]]))
    assert not torch.allclose(first[1], before[1], atol=1e-3)
    assert not torch.allclose(first[1], after[1], atol=1e-3)


def test_the_mask_is_no_candidate(network: BERT4Rec) -> None:
    assert network.output_table.shape == (ITEMS + 1, network.embedding_size)
    assert network.output_bias.shape == (ITEMS + 1,)


def test_the_learning_rate_is_linear_with_warm_up(tmp_path: Path, markov_splits: Splits) -> None:
    made = trainer(tmp_path, markov_splits, warm_up=10, epochs=20, learning_rate=0.5)
    total = 20 * made.steps_per_epoch
    rates = [made.learning_rate(step) for step in range(total)]
    np.testing.assert_allclose(rates[:9], 0.5 * np.arange(1, 10) / 10)
    np.testing.assert_allclose(rates[10:], 0.5 * (1 - np.arange(10, total) / total))
    made.step(0)
    assert [group["lr"] for group in made.optimizer.param_groups] == [0.05, 0.05]


def test_norms_and_biases_do_not_decay(tmp_path: Path, markov_splits: Splits) -> None:
    decayed, kept = trainer(tmp_path, markov_splits).optimizer.param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.01, 0.0)
    assert all(part.dim() > 1 for part in decayed["params"])
    assert all(part.dim() == 1 for part in kept["params"])
    count = len(decayed["params"]) + len(kept["params"])
    assert count == len(list(BERT4Rec(config(tmp_path), ITEMS).parameters()))
