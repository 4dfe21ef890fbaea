"""What holds for every rival that trains over sequences: what it is made of, what learns, what comes of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import Popularity
from llmsrec.ranking.metrics import hit_rate, ndcg
from llmsrec.ranking.protocol import evaluate
from llmsrec.sequential.network import SequenceNetwork
from llmsrec.systems import training
from llmsrec.systems.system import TrainingInput
from llmsrec.systems.training import num_trained, train_system
from llmsrec.training.loop import MetricLog
from tests.systems.small import small_inputs, small_system

N, D, P = 40, 16, 10  # items, width, positions
SASREC = N * D + D + P * D + (4 * (D * D + D) + 2 * (D * D + D) + 4 * D) + 2 * D
GATES, SWIGLU = 2 * (D * D + D), 2 * (4 * D * D + 4 * D) + 4 * D * D + D
CONVOLUTION = 3 * D * D + D + 2 * D
TEXT = 32  # width of the small backbone
KINDS: dict[str, tuple[str, dict[str, Any], int]] = {
    "gsasrec": ("gsasrec", {}, SASREC),
    "esasrec": ("esasrec", {}, SASREC - 2 * (D * D + D) + GATES + SWIGLU),
    "gru4rec": ("gru4rec", {}, (N + 1) * D + 6 * D * D + 6 * D + N + 1),
    "gru4rec_bpr": (
        "gru4rec",
        {"loss": "bpr_max", "negatives": 16, "optimizer": "adagrad", "learning_rate": 0.05},
        (N + 1) * D + 6 * D * D + 6 * D + N + 1,
    ),
    "gru4rec_sampled": (
        "gru4rec",
        {"negatives": 16},
        (N + 1) * D + 6 * D * D + 6 * D + N + 1,
    ),
    "nextitnet": ("nextitnet", {}, (N + 1) * D + 2 * 2 * CONVOLUTION + (N + 1) * (D + 1)),
    "bert4rec": (
        "bert4rec",
        {},
        (N + 2) * D + P * D + 2 * D + (4 * (D * D + D) + 8 * D * D + 5 * D + 4 * D) + D * D + D + 2 * D + N + 1,
    ),
    "sasrec_text": (
        "sasrec_text",
        {},
        SASREC - (N + 1) * D + (TEXT + 1) * 24 + 25 * D,
    ),
    "llm2sasrec": ("llm2sasrec", {}, SASREC),
    "llm2esasrec": ("llm2esasrec", {}, SASREC - 2 * (D * D + D) + GATES + SWIGLU),
    "ctrl": ("ctrl", {}, SASREC),
    "ctrl_contrastive": (
        "ctrl",
        {"variant": "contrastive"},
        SASREC + 2 * (D * D + D) + (TEXT + 1) * D + 2 * (D + 1) * 3 * D,
    ),
}  # fmt: skip
BOTH_WAYS = {"bert4rec"}  # forward is not causal


@pytest.fixture
def inputs(markov_splits: Splits, small_backbone: Path) -> TrainingInput:
    return small_inputs(markov_splits, small_backbone)


def system(kind: str, folder: Path, teacher: dict[str, Any] | None = None, **own: Any) -> Any:
    name, changes, _ = KINDS[kind]
    return small_system(name, teacher, **(changes | own))


def shaken(network: SequenceNetwork) -> SequenceNetwork:
    """Weights far from their start, so that a bias or a norm that is left out shows."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight += 0.2 * torch.randn_like(weight)
            if name.endswith("item_embedding.weight"):
                weight[0] = 0
    return network.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_has_the_published_parts(
    kind: str, inputs: TrainingInput, tmp_path: Path
) -> None:
    assert num_trained(system(kind, tmp_path).network(inputs)) == KINDS[kind][2]


@pytest.mark.parametrize("kind", KINDS)
def test_every_trained_part_learns_and_no_other(
    kind: str, inputs: TrainingInput, tmp_path: Path
) -> None:
    """Over its stages each parameter gets a gradient; the padding's row never does."""
    made = system(kind, tmp_path)
    network = made.network(inputs)
    buffers = {name: part.clone() for name, part in network.named_buffers()}
    learned = set()
    for stage in made.stages(network, inputs):
        stage.trainer.step(0)
        for name, part in network.named_parameters():
            if part.grad is not None and (part.grad != 0).any():
                learned.add(name)
                if name.endswith("item_embedding.weight"):
                    assert (part.grad[0] == 0).all()
                part.grad = None
    assert learned == {name for name, _ in network.named_parameters()}
    for name, part in network.named_buffers():
        assert torch.equal(part, buffers[name])
    assert (network.item_table[0] == 0).all() or kind == "nextitnet"  # whose row 0 is never scored


@pytest.mark.parametrize("kind", sorted(set(KINDS) - BOTH_WAYS))
def test_states_do_not_depend_on_padding_or_batch(
    kind: str, inputs: TrainingInput, tmp_path: Path
) -> None:
    network = shaken(system(kind, tmp_path).network(inputs))
    rows = [[3], [5, 9, 2], list(range(1, 9)), [7, 7, 1, 30, 4], [], list(range(20, 33))]
    found = network.represent(from_rows(rows))
    assert (found[4] == 0).all()
    for number, row in enumerate(rows):
        torch.testing.assert_close(network.represent(from_rows([row]))[0], found[number])
    block = network(torch.from_numpy(from_rows(rows).padded(P))).detach()
    torch.testing.assert_close(block[:, -1], found, atol=1e-5, rtol=1e-5)
    assert (block[0, :-1] == 0).all()
    narrow = network(torch.tensor([[0, 5, 9, 2]])).detach()
    torch.testing.assert_close(narrow[0, 1:], block[1, -3:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network.represent(from_rows([rows[5][-P:]]))[0], found[5])


@pytest.mark.parametrize("kind", sorted(set(KINDS) - BOTH_WAYS))
def test_the_future_changes_no_earlier_state(
    kind: str, inputs: TrainingInput, tmp_path: Path
) -> None:
    network = shaken(system(kind, tmp_path).network(inputs))
    first, other = (
        network(torch.tensor([[0, 0, 1, 2, 3, 4, 5, after, 7]])).detach() for after in (6, 17)
    )
    torch.testing.assert_close(first[:, :7], other[:, :7])
    for place in (7, 8):  # and what is known changes what comes after it
        assert not torch.allclose(first[:, place], other[:, place], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_products_and_biases(kind: str, inputs: TrainingInput, tmp_path: Path) -> None:
    made = system(kind, tmp_path)
    network = shaken(made.network(inputs))
    rows = from_rows([[5, 9, 2], [7]])
    expected = network.represent(rows) @ network.item_table.T
    if network.output_bias is not None:
        expected = expected + network.output_bias.detach()
    model = made.model(network, inputs)
    np.testing.assert_allclose(model.score(rows), expected.numpy(), rtol=1e-4, atol=1e-4)
    items = np.array([[3, 1, 9], [20, 2, 40]])
    some = model.score_candidates(model.user_vectors(rows), items)
    wanted = np.take_along_axis(expected.numpy(), items, axis=1)
    np.testing.assert_allclose(some, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(model.user_vectors(rows), network.represent(rows).numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_transitions(kind: str, inputs: TrainingInput, tmp_path: Path) -> None:
    """Ten candidates: chance is a hit rate at 3 of 0.3; who does not know the order has no better way."""
    epochs = {"epochs": 40 if kind in ("sasrec_text", "bert4rec", "gru4rec_bpr") else 15}
    made = system(kind, tmp_path, teacher=epochs | {"validate_every": 5}, **(
        epochs | {"validate_every": 10} if kind == "bert4rec" else {}
    ))  # fmt: skip
    network = train_system(made, inputs, tmp_path / "out", tmp_path / "scratch", "key")
    ranks = evaluate(made.model(network, inputs), inputs.splits, "test", full=False).sampled
    popular = evaluate(Popularity(inputs.splits), inputs.splits, "test", full=False).sampled
    assert hit_rate(ranks, 3).mean() > 0.6
    assert ndcg(ranks, 10).mean() > ndcg(popular, 10).mean() + 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bits(
    kind: str, inputs: TrainingInput, tmp_path: Path
) -> None:
    made = system(kind, tmp_path)
    first, again = (
        train_system(made, inputs, tmp_path / name, tmp_path / f"scratch_{name}", "key").digest
        for name in ("first", "again")
    )
    assert first == again
    torch.manual_seed(99)
    assert train_system(made, inputs, tmp_path / "first", tmp_path / "none", "key").digest == first


class Stopped(Exception):
    """The machine went away."""


@pytest.mark.parametrize(
    ("kind", "look"),
    [("bert4rec", 2), ("ctrl_contrastive", 2), ("ctrl_contrastive", 3), ("ctrl_contrastive", 4), ("gru4rec_bpr", 2),
     ("nextitnet", 2), ("sasrec_text", 2)],
)  # fmt: skip
def test_an_interrupted_run_equals_an_uninterrupted_one(
    kind: str, look: int, inputs: TrainingInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at a look, of whichever stage, before its state is kept; at look 3 the first stage alone is."""
    made, looks = system(kind, tmp_path), 0

    class StoppingLog(MetricLog):
        def __call__(self, step: int, **metrics: float) -> None:
            nonlocal looks
            looks += 1
            if looks == look:
                raise Stopped
            super().__call__(step, **metrics)

    whole = train_system(made, inputs, tmp_path / "whole", tmp_path / "scratch_whole", "key")
    monkeypatch.setattr(training, "MetricLog", StoppingLog)
    with pytest.raises(Stopped):
        train_system(made, inputs, tmp_path / "out", tmp_path / "scratch", "key")
    monkeypatch.setattr(training, "MetricLog", MetricLog)
    kept = [
        path
        for name in ("state.json", training.WEIGHTS)
        for path in (tmp_path / "scratch").rglob(name)
    ]
    assert kept  # there is something to go on from
    torch.manual_seed(99)
    resumed = train_system(made, inputs, tmp_path / "out", tmp_path / "scratch", "key")
    assert resumed.digest == whole.digest
    curves = [(tmp_path / name / "curves.json").read_bytes() for name in ("whole", "out")]
    assert curves[0] == curves[1]
