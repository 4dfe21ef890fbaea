"""SASRec against a second implementation, and what must not change a user's state."""

from dataclasses import replace
from math import exp, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.data.sequences import from_rows
from llmsrec.sequential import network as network_module
from llmsrec.sequential.network import batches_by_length
from llmsrec.sequential.sasrec import SASRec, SASRecConfig

ITEMS = 30
HISTORIES = [[3], [5, 9, 2], [7, 7, 1, 30, 4, 4, 12], list(range(1, 13)), list(range(29, 8, -1))]


def network(**changes: Any) -> SASRec:
    """Weights far from their start, so that a bias or a norm that is left out shows."""
    values: dict[str, Any] = {
        "num_items": ITEMS, "embedding_size": 8, "num_blocks": 2, "num_heads": 1,
        "dropout": 0.5, "norm": "original", "max_length": 12, "layers": "standard",
        "ligr_multiplier": 4,
    }  # fmt: skip
    torch.manual_seed(1)
    model = SASRec(SASRecConfig(**{**values, **changes})).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight += 0.2 * torch.randn_like(weight)
            if name == "item_embedding.weight":
                weight[0] = 0
    return model


def slow_states(model: SASRec, history: list[int]) -> np.ndarray:
    """Specification 4.1, one row in float64, in loops over all positions of the full width; the last state is last."""
    config = model.config
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}
    size, width = config.embedding_size, config.max_length
    row = ([0] * width + history)[-width:]
    x = [
        w["item_embedding.weight"][item] * sqrt(size) + w["position_embedding.weight"][place]
        if item
        else np.zeros(size)
        for place, item in enumerate(row)
    ]
    for number in range(config.num_blocks):
        x = slow_block(x, row, block_weights(w, f"blocks.{number}."), config)
    return np.array([slow_norm(w, "last_norm", x[place]) for place in range(width) if row[place]])


def block_weights(w: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name[len(prefix) :]: value for name, value in w.items() if name.startswith(prefix)}


def slow_block(
    x: list[np.ndarray], row: list[int], w: dict[str, np.ndarray], config: SASRecConfig
) -> list[np.ndarray]:
    real = [place for place, item in enumerate(row) if item]
    out = [np.zeros(config.embedding_size) for _ in row]
    for place in real:
        past = [other for other in real if other <= place]
        if config.layers == "ligr":
            normal = [slow_norm(w, "attention_norm", x[other]) for other in past]
            mixed = slow_attention(w, normal[-1], normal, config.num_heads)
            y = x[place] + sigmoid(linear(w, "attention_gate", x[place])) * mixed
            fed = slow_gated_feed(w, slow_norm(w, "feed_norm", y))
            out[place] = y + sigmoid(linear(w, "feed_gate", y)) * fed
        elif config.norm == "original":
            query = slow_norm(w, "attention_norm", x[place])
            mixed = query + slow_attention(w, query, [x[other] for other in past], config.num_heads)
            y = slow_norm(w, "feed_norm", mixed)
            out[place] = y + slow_feed(w, y)
        elif config.norm == "pre":
            normal = [slow_norm(w, "attention_norm", x[other]) for other in past]
            y = x[place] + slow_attention(w, normal[-1], normal, config.num_heads)
            out[place] = y + slow_feed(w, slow_norm(w, "feed_norm", y))
        else:
            seen = [x[other] for other in past]
            mixed = x[place] + slow_attention(w, x[place], seen, config.num_heads)
            y = slow_norm(w, "attention_norm", mixed)
            out[place] = slow_norm(w, "feed_norm", y + slow_feed(w, y))
    return out


def linear(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return w[f"{name}.weight"] @ x + w[f"{name}.bias"]


def slow_norm(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return (x - mean) / sqrt(variance + 1e-8) * w[f"{name}.weight"] + w[f"{name}.bias"]


def slow_feed(w: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    return linear(w, "outer", np.maximum(linear(w, "inner", x), 0))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def slow_gated_feed(w: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """SwiGLU: one map opens and closes what another lets through."""
    gate = linear(w, "inner_gate", x)
    return linear(w, "outer", gate * sigmoid(gate) * linear(w, "inner", x))


def slow_attention(
    w: dict[str, np.ndarray], query: np.ndarray, sources: list[np.ndarray], num_heads: int
) -> np.ndarray:
    """What one position takes from itself and those before it."""
    q = linear(w, "query", query)
    keys = [linear(w, "key", source) for source in sources]
    values = [linear(w, "value", source) for source in sources]
    size = len(q) // num_heads
    heads = []
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        weights = [exp(q[part] @ key[part] / sqrt(size)) for key in keys]
        total = sum(weights)
        heads.append(
            sum(weight / total * value[part] for weight, value in zip(weights, values, strict=True))
        )
    return linear(w, "out", np.concatenate(heads))


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(
    "shape",
    [{"norm": "original"}, {"norm": "pre"}, {"norm": "post"}, {"norm": "pre", "layers": "ligr"}],
)
def test_equals_a_slow_second_implementation(shape: dict[str, str], heads: int) -> None:
    model = network(**shape, num_heads=heads)
    slow = [slow_states(model, history) for history in HISTORIES]
    represented = model.represent(from_rows(HISTORIES)).numpy()
    np.testing.assert_allclose(represented, [states[-1] for states in slow], atol=2e-5)
    block = torch.from_numpy(from_rows(HISTORIES).padded(12))
    with torch.no_grad():
        exact = model.double()(block)
    for row, states in enumerate(slow):
        np.testing.assert_allclose(exact[row, -len(states) :], states, atol=1e-10)


def test_padded_positions_hold_zero() -> None:
    states = network()(torch.tensor([[0, 0, 3, 4], [0, 0, 0, 0]])).detach()
    assert (states[0, :2] == 0).all()
    assert (states[1] == 0).all()
    assert (states[0, 2:] != 0).all()


histories = st.lists(st.lists(st.integers(1, ITEMS), max_size=20), min_size=1, max_size=6)


@given(histories, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=25)
def test_a_state_does_not_depend_on_its_batch(rows: list[list[int]], random: Any) -> None:
    model = network(norm="pre")
    together = model.represent(from_rows(rows))
    separate = torch.cat([model.represent(from_rows([row])) for row in rows])
    torch.testing.assert_close(together, separate, atol=1e-5, rtol=1e-5)
    order = random.sample(range(len(rows)), len(rows))
    permuted = model.represent(from_rows([rows[row] for row in order]))
    torch.testing.assert_close(permuted, together[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layers", ["standard", "ligr"])
@pytest.mark.parametrize("norm", ["original", "pre", "post"])
def test_more_padding_changes_nothing(norm: str, layers: str) -> None:
    model = network(norm=norm, layers=layers)
    row = from_rows([[5, 9, 2]])
    for width in (3, 4, 12):
        actual = model(torch.from_numpy(row.padded(width))).detach()[:, -1]
        torch.testing.assert_close(actual, model.represent(row), atol=1e-5, rtol=1e-5)


def test_the_future_changes_no_earlier_state() -> None:
    model = network()
    before, after = (model(torch.tensor([[0, 1, 2, 3, last]])).detach() for last in (4, 17))
    torch.testing.assert_close(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before[:, -1], after[:, -1], atol=1e-2)


def test_an_empty_history_is_zero_and_changes_no_other() -> None:
    model = network()
    actual = model.represent(from_rows([[], [5, 9, 2], []]))
    assert (actual[[0, 2]] == 0).all()
    torch.testing.assert_close(actual[1:2], model.represent(from_rows([[5, 9, 2]])))
    assert model.represent(from_rows([[]])).shape == (1, 8)


def test_a_step_with_ligr_layers_has_one_dropout_mask_of_the_item_table() -> None:
    """The expected state is that of a network without other dropout whose weights are the masked table."""
    model = network(norm="pre", layers="ligr", num_blocks=1)
    histories = torch.tensor([[5, 9, 2]])
    model.train()
    model.begin_step()
    table = model.output_table.detach().clone()
    values = model.item_embedding.weight.detach()
    kept = table != 0
    assert 0.3 < kept[1:].float().mean() < 0.7
    torch.testing.assert_close(table[kept], 2 * values[kept])
    assert torch.equal(model.output_table, table)
    for module in model.blocks.modules():
        module.dropout = 0.0
    model.config = replace(model.config, dropout=0.0)
    states = model(histories)
    states.sum().backward()
    assert model.item_embedding.weight.grad[[5, 9, 2]].any()
    assert (model.item_embedding.weight.grad[[5, 9, 2]] != 0)[~kept[[5, 9, 2]]].sum() == 0
    torch.testing.assert_close(model.item_table, values)
    model.begin_step()
    model.eval()
    torch.testing.assert_close(model.output_table.detach(), values)
    with torch.no_grad():
        model.item_embedding.weight.copy_(table)
    torch.testing.assert_close(model(histories), states)


def test_standard_layers_have_no_dropout_of_the_item_table() -> None:
    model = network().train()
    model.begin_step()
    assert model.output_table is model.item_embedding.weight


def test_only_the_last_max_length_purchases_count() -> None:
    model = network()
    long = list(range(1, 31))
    actual = model.represent(from_rows([long, long[-12:], [30, *long[-12:]], long[-11:]]))
    torch.testing.assert_close(actual[0], actual[1])
    torch.testing.assert_close(actual[0], actual[2])
    assert not torch.allclose(actual[0], actual[3], atol=1e-2)


def test_positions_are_the_states_of_the_prefixes() -> None:
    model = network()
    rows = [[5, 9, 2], [], list(range(1, 16)), [4]]  # one longer than the window, which then slides
    prefixes = [row[:end] for row in rows for end in range(1, len(row) + 1)]
    torch.testing.assert_close(
        model.represent_positions(from_rows(rows)),
        torch.cat([model.represent(from_rows([prefix])) for prefix in prefixes]),
        atol=1e-5,
        rtol=1e-5,
    )


def test_a_teacher_in_training_is_read_without_dropout() -> None:
    model = network()
    calm = model.represent(from_rows(HISTORIES))
    model.train()
    assert torch.equal(model.represent(from_rows(HISTORIES)), calm)
    assert model.training  # and goes on training
    noisy = model(torch.from_numpy(from_rows(HISTORIES).padded(12))).detach()[:, -1]
    assert not torch.allclose(noisy, calm, atol=1e-2)


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 200))
def test_chunks_hold_every_row_that_has_a_length_once_within_the_budget(
    lengths: list[int], budget: int
) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_module, "BATCH_POSITIONS", budget)
        chunks = list(batches_by_length(sizes))
    actual = np.concatenate([*chunks, np.zeros(0, np.int64)])
    assert sorted(actual) == [row for row, length in enumerate(lengths) if length]
    assert all(len(set(sizes[chunk])) == 1 for chunk in chunks)
    assert all(len(chunk) == 1 or sizes[chunk].sum() <= budget for chunk in chunks)


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    model = network(norm="post", num_heads=2)
    model.train().save(tmp_path / "teacher")
    loaded = SASRec.load(tmp_path / "teacher")
    assert loaded.config == model.config
    assert loaded.digest == model.digest
    assert not loaded.training
    rows = from_rows(HISTORIES)
    assert torch.equal(loaded.represent(rows), model.represent(rows))


def test_the_digest_differs_for_other_weights() -> None:
    model = network()
    before = model.digest
    with torch.no_grad():
        model.last_norm.bias[0] += 1e-6
    assert model.digest != before


def test_the_padding_starts_at_zero_and_no_gradient_reaches_it() -> None:
    torch.manual_seed(0)
    model = SASRec(network().config)
    assert (model.item_table[0] == 0).all()
    block = torch.from_numpy(from_rows(HISTORIES).padded(12))
    model(block).square().sum().backward()
    gradient = model.item_embedding.weight.grad
    assert gradient is not None
    assert (gradient[0] == 0).all()
    assert (gradient[3] != 0).any()
