"""CTRL, LLM2SASRec, SASRec on texts: where tables start, and the alignment's loss against loops (SPEC 4.3)."""

from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch

from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import load_backbone
from llmsrec.sequential.sasrec import SASRec
from llmsrec.systems.ctrl import AlignedSASRec, AlignmentTrainer, matching_loss, texts_of
from llmsrec.systems.sasrec_text import TextTable
from llmsrec.systems.system import TrainingInput
from llmsrec.systems.text_vectors import principal, standardised, text_vectors, whitened
from tests.systems.small import small_inputs, small_system


@pytest.fixture
def inputs(markov_splits: Splits, small_backbone: Path) -> TrainingInput:
    return small_inputs(markov_splits, small_backbone)


def slow_matching(states: np.ndarray, texts: np.ndarray) -> float:
    total = 0.0
    for ours, theirs in ((states, texts), (texts, states)):
        for i, first in enumerate(ours):
            for j, second in enumerate(theirs):
                score = sum(max(float(a @ b) for b in second) for a in first)
                total += log(1 + exp(-score if i == j else score))
    return total / (2 * len(states) ** 2)


def test_matching_is_the_formula_in_both_directions() -> None:
    torch.manual_seed(0)
    states, texts = torch.randn(5, 3, 4), torch.randn(5, 3, 4)
    found = matching_loss(states, texts).item()
    assert found == pytest.approx(slow_matching(states.numpy(), texts.numpy()), rel=1e-5)
    assert found == pytest.approx(matching_loss(texts, states).item())


def test_components_are_ordered_centred_and_keep_what_lies_between_items() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(50, 6) * torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5, 0.2]) + 7
    found = principal(vectors, 6)
    assert (found[0] == 0).all()
    torch.testing.assert_close(found[1:].mean(dim=0), torch.zeros(6), atol=1e-5, rtol=0)
    spreads = found[1:].std(dim=0)
    assert (spreads.diff() < 0).all()
    torch.testing.assert_close(
        torch.cdist(found[1:], found[1:]),
        torch.cdist(standardised(vectors)[1:], standardised(vectors)[1:]),
        atol=5e-3, rtol=1e-4,
    )  # fmt: skip
    torch.testing.assert_close(principal(vectors, 2), found[:, :2])
    torch.testing.assert_close(principal(-vectors, 2).abs(), found[:, :2].abs())


def test_whitened_components_are_uncorrelated_and_have_one_spread() -> None:
    """Whatever the vectors are multiplied by; directions without variance are left out."""
    torch.manual_seed(0)
    free = torch.randn(50, 4) * torch.tensor([50.0, 3.0, 1.0, 0.2]) + 7
    vectors = torch.cat([free, free[:, :2] - free[:, 2:]], dim=1)  # six columns of rank 4
    found = whitened(vectors, 6)
    assert found.shape == (50, 4)
    assert (found[0] == 0).all()
    torch.testing.assert_close(torch.cov(found[1:].T), torch.eye(4), atol=2e-3, rtol=0)
    torch.testing.assert_close(found[1:].mean(dim=0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(whitened(vectors, 2), found[:, :2])
    torch.testing.assert_close(whitened(9 * vectors, 2), found[:, :2], atol=1e-3, rtol=1e-3)


def test_llm2sasrec_starts_from_whitened_texts_with_the_usual_spread(
    inputs: TrainingInput,
) -> None:
    torch.manual_seed(5)
    network = small_system("llm2sasrec").network(inputs)
    torch.manual_seed(5)
    usual = small_system("llm2sasrec").config.build_network(inputs.splits.num_items)
    texts = text_vectors(inputs.splits.catalog, load_backbone(inputs.backbone), 16)
    expected = whitened(texts, network.embedding_size)
    width = expected.shape[1]
    assert width <= network.embedding_size
    spread = usual.item_table[1:].std()
    start = network.item_table[:, :width]
    torch.testing.assert_close(start, expected * spread / expected[1:].std(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(start[1:].std(dim=0), spread.expand(width), rtol=2e-2, atol=0)
    assert torch.equal(network.item_table[:, width:], usual.item_table[:, width:])
    for name, weight in usual.state_dict().items():
        if name != "item_embedding.weight":
            assert torch.equal(network.state_dict()[name], weight)


def test_ctrl_item_table_has_the_default_standard_deviation(
    inputs: TrainingInput, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    network = small_system("ctrl").network(inputs)
    torch.manual_seed(5)
    usual = small_system("ctrl").config.build_network(inputs.splits.num_items)
    assert isinstance(network, SASRec)
    texts = text_vectors(inputs.splits.catalog, load_backbone(inputs.backbone), 16)
    components = principal(texts, network.embedding_size)
    table = network.item_table[1:]
    assert table.std().item() == pytest.approx(usual.item_table[1:].std().item(), rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(table.flatten(), components[1:].flatten(), dim=0)
    assert cosine.item() == pytest.approx(1, abs=1e-5)
    assert (network.item_table[0] == 0).all()
    for name, weight in usual.state_dict().items():
        if name != "item_embedding.weight":
            assert torch.equal(network.state_dict()[name], weight)


def test_fewer_components_than_columns_leave_the_others_as_they_were(
    inputs: TrainingInput, tmp_path: Path
) -> None:
    wide = {"embedding_size": 48}  # the small backbone's vectors have 32
    torch.manual_seed(5)
    network = small_system("ctrl", wide).network(inputs)
    torch.manual_seed(5)
    usual = small_system("ctrl", wide).config.build_network(inputs.splits.num_items)
    assert torch.equal(network.item_table[:, 32:], usual.item_table[:, 32:])
    assert (network.item_table[1:, :32] != usual.item_table[1:, :32]).all()


def test_a_history_is_listed_newest_first(markov_splits: Splits) -> None:
    catalog = markov_splits.catalog
    found = texts_of(from_rows([[1, 2, 3, 4], [5], []]), catalog, 3)
    first = "; ".join(catalog.titles[item] for item in (4, 3, 2))
    assert found == [first, catalog.titles[5], ""]


def test_the_text_is_that_of_the_history_that_the_state_is_of(
    inputs: TrainingInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither side sees the purchase that comes next; and pairs are never mixed up."""
    seen: dict[str, list[str]] = {}

    def recorded(texts: list[str], *_: object) -> torch.Tensor:
        seen["texts"] = texts
        return torch.arange(len(texts)).float()[:, None].expand(-1, 32)

    monkeypatch.setattr("llmsrec.systems.ctrl.encoded", recorded)
    system = small_system("ctrl", variant="contrastive")
    trainer = next(system.stages(system.network(inputs), inputs)).trainer
    assert isinstance(trainer, AlignmentTrainer)
    train, titles = inputs.splits.train, inputs.splits.catalog.titles
    for user in range(20):
        expected = [titles[item] for item in train[user][:-1][-10:][::-1]]
        assert seen["texts"][user] == "; ".join(expected)
        assert trainer.prefixes[user].tolist() == train[user][:-1].tolist()
    assert (trainer.texts[:, 0].diff() > 0).all()  # a row for each user, in their order
    assert trainer.config.batch_size == 32


def test_alignment_trains_the_backbone_and_its_maps_but_not_the_output_layer(
    inputs: TrainingInput, tmp_path: Path
) -> None:
    system = small_system("ctrl", variant="contrastive")
    network = system.network(inputs)
    assert isinstance(network, AlignedSASRec)
    before = {name: part.clone() for name, part in network.state_dict().items()}
    next(system.stages(network, inputs)).trainer.step(0)
    moved = {
        name for name, part in network.state_dict().items() if not torch.equal(part, before[name])
    }
    assert not any(name.startswith("out.") for name in moved)
    assert {"backbone.item_embedding.weight", "state_map.weight", "text_map.weight"} <= moved


def test_a_text_table_has_the_default_standard_deviation_and_zero_padding(
    inputs: TrainingInput,
) -> None:
    torch.manual_seed(0)
    usual = torch.nn.Embedding(31, 8)
    torch.nn.init.xavier_normal_(usual.weight)
    vectors = torch.randn(31, 12) + 3
    table = TextTable(vectors, 20, usual)
    found = table.weight
    assert (found[0] == 0).all()
    assert found[1:].std().item() == pytest.approx(usual.weight[1:].std().item(), rel=1e-4)
    items = torch.tensor([[0, 3], [7, 30]])
    torch.testing.assert_close(table(items), found[items])
    assert not table.vectors.requires_grad
