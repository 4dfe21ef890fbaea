"""A-LLMRec's first stage: its loss by hand, gradients that end with their batch, and what cold items are known by."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from llmsrec.data.splits import Splits
from llmsrec.sequential.sasrec import SASRec, SASRecConfig
from llmsrec.systems.alignment import (
    Alignment,
    AlignmentConfig,
    AlignmentTrainer,
    alignment_loss,
    explained_variance,
    training_stage,
    unit_table,
)
from llmsrec.systems.allmrec import ALLMRecNetwork
from llmsrec.systems.system import TrainingInput
from tests.systems.small import parameters, system_from

CONFIG = AlignmentConfig("backbone", 32, False, 1, 64, 1e-2, 1e-4, None)


@pytest.fixture
def inputs(markov_splits: Splits, small_backbone: Path) -> TrainingInput:
    torch.manual_seed(1)
    teacher = SASRec(SASRecConfig(markov_splits.num_items, 16, 1, 1, 0.1, "pre", 32, "standard", 4))
    return TrainingInput(
        markov_splits, teacher.eval().requires_grad_(False), small_backbone, seed=0
    )


def test_the_loss_is_that_of_spec_4_8() -> None:
    torch.manual_seed(0)
    alignment = Alignment(6, 5, 4, None)
    users, items, texts = torch.randn(3, 6), torch.randn(6, 6), torch.randn(6, 5)
    found = alignment_loss(alignment, users, items, texts)
    total = torch.zeros(())
    for user in range(3):
        for row, label in ((user, 1.0), (user + 3, 0.0)):
            e = torch.sigmoid(alignment.item_in.weight @ items[row] + alignment.item_in.bias)
            q = torch.sigmoid(alignment.text_in.weight @ texts[row] + alignment.text_in.bias)
            rebuilt = alignment.item_out(e)
            score = (users[user] * rebuilt).mean()
            total = total + functional.binary_cross_entropy_with_logits(score, torch.tensor(label))
            total = total + (e - q).square().mean()
            total = total + 0.5 * (rebuilt - items[row]).square().mean()
            total = total + 0.2 * (alignment.text_out(q) - texts[row]).square().mean()
    torch.testing.assert_close(found, total / 3)


def test_gradients_are_cleared_after_each_batch(inputs: TrainingInput) -> None:
    """A public version steps several times on gradients that add up (SPEC 6.17)."""
    alignment = Alignment(16, 5, 4, None)
    vectors = torch.randn(inputs.splits.num_items + 1, 5)
    trainer = AlignmentTrainer(
        alignment, lambda items: vectors[torch.from_numpy(items)], inputs, CONFIG
    )
    trainer.step(0)
    state = {name: part.clone() for name, part in alignment.state_dict().items()}
    for part in alignment.parameters():
        part.grad.fill_(1e6)
    trainer.step(1)
    found = [part.grad.clone() for part in alignment.parameters()]
    alignment.load_state_dict(state)
    trainer.step(1)
    for first, second in zip(found, alignment.parameters(), strict=True):
        torch.testing.assert_close(first, second.grad)
        assert first.abs().max() < 1e3


def test_alignment_reduces_its_loss_and_keeps_the_teacher(inputs: TrainingInput) -> None:
    torch.manual_seed(2)
    alignment = Alignment(16, 5, 4, None)
    vectors = torch.randn(inputs.splits.num_items + 1, 5)
    digest = inputs.teacher.digest
    trainer = AlignmentTrainer(
        alignment, lambda items: vectors[torch.from_numpy(items)], inputs, CONFIG
    )
    losses = [trainer.step(step)["loss"] for step in range(30)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert inputs.teacher.digest == digest


@pytest.mark.parametrize("spread", [0.02, 1.0, 50.0])
def test_the_codes_explain_the_item_table_whatever_its_spread(
    inputs: TrainingInput, spread: float
) -> None:
    """With the settings of studies/params.yaml and a few hundred steps, as a small dataset has them."""
    torch.manual_seed(3)
    with torch.no_grad():
        table = inputs.teacher.item_embedding.weight
        table[1:] = torch.randn(table[1:].shape) * torch.linspace(2, 0.2, 16) * spread
    config = system_from(parameters(), "allmrec").alignment
    alignment = Alignment(16, 5, 128, None)
    vectors = torch.randn(inputs.splits.num_items + 1, 5)
    trainer, plan = training_stage(
        AlignmentTrainer(alignment, lambda items: vectors[torch.from_numpy(items)], inputs, config)
    )
    start = explained_variance(alignment, trainer.table)
    for step in range(400):
        trainer.step(step)
    metrics = plan.validate()
    assert start < 0.2
    assert metrics["explained"] > 0.9
    items = unit_table(inputs.teacher)[1:]
    rebuilt = alignment.item_out(alignment.item_codes(items)).detach()
    residual = (rebuilt - items).var(dim=0, correction=0) + (rebuilt - items).mean(dim=0) ** 2
    expected = 1 - residual.sum() / items.var(dim=0, correction=0).sum()
    assert metrics["explained"] == pytest.approx(expected.item(), abs=1e-5)


def test_the_text_encoder_takes_smaller_steps_than_the_autoencoders(inputs: TrainingInput) -> None:
    """Adam's first step is the learning rate; a rate that suits new maps would undo a pre-trained encoder."""
    torch.manual_seed(4)
    encoder = torch.nn.Linear(5, 5)
    alignment = Alignment(16, 5, 4, encoder)
    raw = torch.randn(inputs.splits.num_items + 1, 5)
    trainer = AlignmentTrainer(
        alignment, lambda items: encoder(raw[torch.from_numpy(items)]), inputs, CONFIG
    )
    before = {name: part.detach().clone() for name, part in alignment.named_parameters()}
    trainer.step(0)
    for name, part in alignment.named_parameters():
        rate = CONFIG.text_learning_rate if name.startswith("encoder.") else CONFIG.learning_rate
        assert (part - before[name]).abs().max().item() == pytest.approx(rate, rel=0.01)


def test_an_unbought_item_is_represented_by_its_text(inputs: TrainingInput) -> None:
    train = inputs.splits.train
    item = int(train[0][0])
    lengths = np.where(
        [item in train[user] for user in range(len(train))], 0, inputs.splits.train_lengths
    )
    inputs = replace(inputs, splits=replace(inputs.splits, train_lengths=lengths))
    reader = system_from(parameters(), "allmrec").reading.network(inputs)
    network = ALLMRecNetwork(inputs, reader, CONFIG)
    network.fill_item_codes(inputs)
    table, alignment = network.reader.soft_prompts.table, network.alignment
    cold = [row for row in range(1, len(table)) if row not in inputs.splits.train.items]
    warm = next(row for row in range(1, len(table)) if row not in cold)
    assert item in cold
    text = alignment.text_codes(network.texts(np.array([item])))[0]
    torch.testing.assert_close(table[item], text)
    torch.testing.assert_close(table[warm], alignment.item_codes(unit_table(inputs.teacher))[warm])
