"""RECFORMER: what it reads, that padding changes nothing, and how it is trained (SPEC 4.4, 6.17)."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LongformerConfig, LongformerForMaskedLM

from llmsrec.backbones.small import train_tokenizer
from llmsrec.core.errors import ArtifactError, ConfigError, DataError
from llmsrec.data.catalog import COLUMNS, Catalog
from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Splits
from llmsrec.ranking.metrics import ndcg
from llmsrec.ranking.protocol import evaluate
from llmsrec.sequential.sasrec import SASRec, SASRecConfig
from llmsrec.systems.recformer.config import RecformerConfig
from llmsrec.systems.recformer.examples import Examples
from llmsrec.systems.recformer.finetuning import FineTuning, rate, stage
from llmsrec.systems.recformer.network import Recformer
from llmsrec.systems.recformer.pretraining import Pretraining, masked
from llmsrec.systems.recformer.system import RecformerSystem
from llmsrec.systems.recformer.texts import (
    KEY,
    SPECIAL,
    VALUE,
    Limits,
    TextBuilder,
    Texts,
    Vocabulary,
)
from llmsrec.systems.system import TrainingInput
from llmsrec.systems.training import num_trained, train_system
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.loop import MetricLog, train

START, MASK = 1, 2
LETTERS = Vocabulary(shift=0, pad=0, start=START, mask=MASK, size=128)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These matrices are so small that threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Letters(dict[str, Any]):
    """A tokenizer that can be read: a letter is a token, what stands between spaces a word."""

    def __call__(self, texts: list[str], *, add_special_tokens: bool) -> "Letters":
        assert not add_special_tokens
        self.texts = texts
        return Letters(
            input_ids=[[ord(letter) for letter in text if letter != " "] for text in texts],
            words=[
                [number for number, word in enumerate(text.split()) for _ in word] for text in texts
            ],
        )

    def word_ids(self, row: int) -> list[int]:
        return self["words"][row]


def catalogue() -> Catalog:
    rows = [
        (1, "A", "ab cd", "unread", "Br", "K"),
        (2, "B", "ef", "unread", "", " "),
        (3, "C", "g", "unread", "Br", ""),
        (4, "D", "", "unread", "", ""),
    ]
    return Catalog(pd.DataFrame(rows, columns=COLUMNS))


def text_builder(
    attribute_tokens: int = 32,
    max_items: int = 50,
    max_tokens: int = 1024,
    catalog: Catalog | None = None,
) -> TextBuilder:
    limits = Limits(attribute_tokens, max_items, max_tokens)
    return TextBuilder(Letters(), catalog or catalogue(), LETTERS, limits)


def shown(texts: Texts, row: int = 0) -> str:
    tokens = texts.take(np.array([row])).tokens.tolist()
    return "".join("^" if token == START else chr(token) for token in tokens)


def config(**changes: Any) -> RecformerConfig:
    values: dict[str, Any] = {
        "encoder": "small", "revision": None, "num_layers": 1, "hidden_size": 32, "num_heads": 2,
        "dropout": 0.1, "window": 16, "attribute_tokens": 24, "max_items": 6, "max_tokens": 128,
        "temperature": 0.05, "pretrain_epochs": 1, "pretrain_batch_size": 64,
        "pretrain_learning_rate": 1e-3, "mlm_weight": 0.1, "mlm_share": 0.15, "learning_rate": 3e-3,
        "batch_size": 32, "accumulation": 2, "warmup_steps": 4, "epochs": 2, "second_epochs": 1,
        "validate_every": 1, "validation_users": 60, "patience": 5, "second_patience": 3,
    }  # fmt: skip
    return RecformerConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def inputs(few_splits: Splits, small_backbone: Path) -> TrainingInput:
    teacher = SASRec(
        SASRecConfig(few_splits.num_items, 16, 1, 1, 0.1, "pre", 32, "standard", 4)
    ).eval()
    return TrainingInput(few_splits, teacher, small_backbone, seed=3)


@pytest.fixture
def network(inputs: TrainingInput) -> Recformer:
    torch.manual_seed(0)
    return RecformerSystem(config()).network(inputs)


# What is read


def test_a_user_is_the_texts_of_the_items_latest_first() -> None:
    """By hand: keys and values of what an item has; the description is not read."""
    texts = text_builder().users(from_rows([[1, 2, 3], [2]]))
    assert shown(texts, 0) == "^" + "titlegbrandBr" + "titleef" + "titleabcdbrandBrcategoryK"
    assert shown(texts, 1) == "^titleef"
    first = texts.take(np.array([0]))
    third = [KEY] * 5 + [VALUE] + [KEY] * 5 + [VALUE] * 2
    second = [KEY] * 5 + [VALUE] * 2
    oldest = [KEY] * 5 + [VALUE] * 4 + [KEY] * 5 + [VALUE] * 2 + [KEY] * 8 + [VALUE]
    assert first.types.tolist() == [SPECIAL, *third, *second, *oldest]
    assert first.places.tolist() == [0] + [1] * 13 + [2] * 7 + [3] * 25
    words = "".join(
        "|" * int(begins) + letter
        for begins, letter in zip(first.begins, shown(texts), strict=True)
    )
    assert words == "|^|title|g|brand|Br|title|ef|title|ab|cd|brand|Br|category|K"


def test_an_item_is_encoded_as_a_history_of_one() -> None:
    texts = text_builder().items(np.array([3, 4]))
    assert shown(texts, 0) == "^titlegbrandBr"
    assert shown(texts, 1) == "^"  # the shop says nothing of it
    assert texts.places.tolist() == [0] + [1] * 13 + [0]


def test_an_attribute_is_cut_with_its_key_at_its_limit() -> None:
    assert (
        shown(text_builder(attribute_tokens=7).users(from_rows([[1]]))) == "^titleabbrandBrcategor"
    )


def test_only_the_newest_items_are_read() -> None:
    assert shown(text_builder(max_items=2).users(from_rows([[1, 2, 3]]))) == "^titlegbrandBrtitleef"


@pytest.mark.parametrize(("most", "last"), [(22, ""), (28, "titleef"), (36, "titleef")])
def test_the_oldest_items_are_truncated(most: int, last: str) -> None:
    """Whole items; none older takes the place of one that was too long."""
    rows = from_rows([[2, 3, 2, 2, 3], [1, 2, 1, 2]])
    texts = text_builder(attribute_tokens=7, max_tokens=most).users(rows)
    assert shown(texts, 0) == "^" + "titlegbrandBr" + "titleef" + last
    rest = "titleabbrandBrcategor" + "titleef" if most == 36 else ""
    assert shown(texts, 1) == "^" + "titleef" + rest
    assert texts.lengths.max() <= most


def test_a_limit_below_one_item_is_refused() -> None:
    with pytest.raises(ValueError, match="an item may need 72"):
        config(max_tokens=72)


# Masked words


def share_of_words(
    word: np.ndarray[Any, Any], tokens: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Of each word's tokens."""
    return np.bincount(word, tokens) / np.bincount(word)


def test_words_are_masked_whole_and_special_tokens_never() -> None:
    texts = text_builder().users(from_rows([[1, 2, 3, 1, 2], [2], [3, 1]] * 20))
    word = np.cumsum(texts.begins) - 1
    masks, words, kept = 0, 0, 0
    for seed in range(20):
        changed, asked = masked(texts, MASK, 0.15, np.random.default_rng(seed))
        assert not asked[texts.types == SPECIAL].any()
        whole = share_of_words(word, asked)
        assert set(whole) == {0.0, 1.0}
        assert np.array_equal(changed.tokens[~asked], texts.tokens[~asked])
        hidden = share_of_words(word, changed.tokens == MASK)
        assert set(hidden) == {0.0, 1.0}
        same = share_of_words(word, changed.tokens == texts.tokens)
        words += int(whole.sum())
        masks += int(hidden.sum())
        kept += int((same[whole == 1] == 1).sum())
    total = 20 * (len(np.unique(word)) - len(texts))
    assert words / total == pytest.approx(0.15, abs=0.01)
    assert masks / words == pytest.approx(0.8, abs=0.03)
    assert kept / words == pytest.approx(0.1, abs=0.03)


def test_at_least_one_word_is_masked() -> None:
    texts = text_builder().users(from_rows([[2]]))
    for seed in range(20):
        _, asked = masked(texts, MASK, 0.0, np.random.default_rng(seed))
        assert asked.any()
        assert not asked[0]


# The network


def test_the_embedding_is_the_sum_of_four_tables_normed(
    network: Recformer, inputs: TrainingInput
) -> None:
    """Word, position, token type and item position, each by its own table, then LayerNorm; by hand."""
    texts = network.text_builder.users(from_rows([[5, 6], [7]]))
    caught: list[torch.Tensor] = []
    tables = network.encoder.embeddings
    tables.LayerNorm.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    network.eval().states(texts)
    for row in range(2):
        one = texts.take(np.array([row]))
        for place in range(int(one.lengths[0])):
            wanted = (
                tables.word_embeddings.weight[one.tokens[place]]
                + tables.position_embeddings.weight[1 + place]  # 0 is the padding's
                + tables.token_type_embeddings.weight[one.types[place]]
                + network.item_position.weight[one.places[place]]
            )
            torch.testing.assert_close(caught[0][row, place], wanted, rtol=0, atol=1e-6)


def test_without_item_positions_it_equals_longformer(
    network: Recformer,
) -> None:
    """Which finds positions by the tokens and pads by itself: masks, windows and positions agree with ours."""
    torch.nn.init.zeros_(network.item_position.weight)
    network.eval()
    texts = network.text_builder.users(from_rows([[5, 6, 7, 8], [9], [10, 11]]))
    length = int(texts.lengths.max())
    assert length % network.window
    real = torch.arange(length) < torch.from_numpy(texts.lengths)[:, None]
    tokens, types = (torch.zeros(3, length, dtype=torch.long) for _ in range(2))
    tokens[real], types[real] = torch.from_numpy(texts.tokens), torch.from_numpy(texts.types)
    first = torch.zeros_like(tokens)
    first[:, 0] = 1
    with torch.no_grad():
        theirs = network.encoder(
            input_ids=tokens,
            attention_mask=real.long(),
            global_attention_mask=first,
            token_type_ids=types,
        ).last_hidden_state
        ours = network.states(texts)[:, :length]
    torch.testing.assert_close(ours[real], theirs[real], rtol=0, atol=1e-5)


def test_a_user_does_not_depend_on_its_batch(network: Recformer) -> None:
    rows = [[5], [6, 7, 8, 9, 10, 11], [12, 13], [1, 2, 3]]
    texts = network.text_builder.users(from_rows(rows))
    network.eval()
    with torch.no_grad():
        together = torch.nn.functional.normalize(network.states(texts)[:, 0], dim=-1)
        torch.testing.assert_close(network.represent(texts), together, rtol=0, atol=1e-5)
        for row in range(len(rows)):
            alone = network.represent(texts.take(np.array([row])))
            torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)
    assert network.window * 4 < texts.lengths.max()  # several windows, and rows of less than two
    assert texts.lengths.min() < network.window * 2
    assert not torch.allclose(together[0], together[2], atol=1e-2)


def test_the_number_of_parameters_is_that_of_the_formula(network: Recformer) -> None:
    size, layers, words = 32, 1, 3 + len_of_tokenizer(network)
    tables = words + (128 + 1) + 4 + (6 + 1)
    attention = (
        7 * (size * size + size) + 2 * size
    )  # local and global query, key, value; output; norm
    feed = 2 * 4 * size * size + 4 * size + size + 2 * size
    assert num_trained(network) == tables * size + 2 * size + layers * (attention + feed)


def len_of_tokenizer(network: Recformer) -> int:
    vocabulary = network.text_builder.vocabulary
    return vocabulary.size - vocabulary.shift


def test_the_item_matrix_has_no_gradient_and_the_encoder_has(inputs: TrainingInput) -> None:
    """Of the last layer the first token alone is read, which attends globally: its local attention learns nothing."""
    knobs = config(num_layers=2)
    network = RecformerSystem(knobs).network(inputs)
    examples = Examples(inputs.splits.train, 64, 3)
    trainer = FineTuning(network, examples, knobs, rereads=False)
    network.read_items()
    before = network.item_matrix.clone()
    histories, targets = examples.batch(0, examples.draws(0))
    trainer.loss(histories, targets).backward()
    assert network.item_matrix.grad is None
    assert not network.item_matrix.requires_grad
    last = "encoder.encoder.layer.1.attention.self."
    local = {
        f"{last}{part}.{kind}" for part in ("query", "key", "value") for kind in ("weight", "bias")
    }
    parts = network.named_parameters()
    without = {name for name, part in parts if part.grad is None or not part.grad.any()}
    assert without == local
    trainer.step(0)
    assert torch.equal(network.item_matrix, before)
    norms = before.norm(dim=1)
    torch.testing.assert_close(norms, torch.tensor([0.0] + [1.0] * inputs.splits.num_items))


def test_everything_but_the_item_matrix_is_pretrained(
    network: Recformer, inputs: TrainingInput
) -> None:
    trainer = Pretraining(network, Examples(inputs.splits.train, 64, 3), config())
    before = {name: part.clone() for name, part in trainer.network.state_dict().items()}
    trainer.step(0)
    same = [
        name
        for name, part in trainer.network.state_dict().items()
        if torch.equal(part, before[name])
    ]
    assert same == ["network.item_matrix"]


# Training


def test_no_training_history_is_empty() -> None:
    """SPEC 6.17: the target is a second purchase or a later one, and all of these come up."""
    train_rows = from_rows([[1, 2], [3], [4, 5, 6], [], [7, 8, 9, 10]])
    examples = Examples(train_rows, 2, 5)
    assert examples.steps_per_epoch == 2
    seen = set()
    for epoch in range(40):
        users = set()
        for step in (2 * epoch, 2 * epoch + 1):
            histories, targets = examples.batch(step, examples.draws(step))
            assert histories.lengths.min() >= 1
            users |= {int(histories[row][0]) for row in range(len(histories))}
            seen |= {(*histories[row].tolist(), int(targets[row])) for row in range(len(histories))}
        assert users == {1, 4, 7}  # each once an epoch
    assert seen == {(1, 2), (4, 5), (4, 5, 6), (7, 8), (7, 8, 9), (7, 8, 9, 10)}
    with pytest.raises(DataError, match="nothing to train on"):
        Examples(from_rows([[1], [2]]), 2, 5)


def test_gradient_accumulation_equals_one_step(inputs: TrainingInput) -> None:
    """16 x 8 is 128: what is accumulated is the mean over all."""

    def stepped(**changes: Any) -> tuple[float, torch.Tensor]:
        torch.manual_seed(0)
        network = RecformerSystem(config(dropout=0.0)).network(inputs)
        examples = Examples(inputs.splits.train, 64, 3)
        loss = FineTuning(network, examples, config(dropout=0.0, **changes), rereads=True).step(0)
        grads = [part.grad.flatten() for part in network.parameters() if part.grad is not None]
        return loss["loss"], torch.cat(grads)

    whole, parts = stepped(batch_size=64), stepped(batch_size=10)
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-3, atol=1e-6)


def test_the_learning_rate_warms_up_and_decays() -> None:
    assert [rate(step, 4, 8) for step in range(8)] == [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]


class Stopped(Exception):
    """The machine went away."""


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step after so many, of all stages together, does not come."""
    taken = 0

    def stopping(step: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
        def wrapped(self: Any, number: int) -> dict[str, float]:
            nonlocal taken
            taken += 1
            if taken > steps:
                raise Stopped
            return step(self, number)

        return wrapped

    for kind in (Pretraining, FineTuning):
        monkeypatch.setattr(kind, "step", stopping(kind.step))


def test_an_interrupted_training_ends_in_the_same_bytes(
    inputs: TrainingInput, markov_splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five steps an epoch: the training stops in each of its three stages, and resumes."""
    inputs = replace(inputs, splits=markov_splits)
    system = RecformerSystem(config(pretrain_epochs=2, second_epochs=2, max_items=2))
    whole = train_system(system, inputs, tmp_path / "whole", tmp_path / "a", "key")
    for steps in (7, 12, 7):
        with monkeypatch.context() as patch:
            stop_after(steps, patch)
            with pytest.raises(Stopped):
                train_system(system, inputs, tmp_path / "parts", tmp_path / "b", "key")
        torch.manual_seed(steps)
    parts = train_system(system, inputs, tmp_path / "parts", tmp_path / "b", "key")
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert torch.equal(whole.item_matrix, parts.item_matrix)
    curves = [(tmp_path / name / "curves.json").read_text() for name in ("whole", "parts")]
    assert curves[0] == curves[1]


def test_another_seed_trains_another_network(inputs: TrainingInput) -> None:
    def after_a_step(seed: int) -> torch.Tensor:
        torch.manual_seed(0)
        system, changed = RecformerSystem(config(pretrain_epochs=0)), replace(inputs, seed=seed)
        network = system.network(changed)
        (first, *_) = system.stages(network, changed)
        first.trainer.step(0)
        return network.item_position.weight.detach()

    assert torch.equal(after_a_step(3), after_a_step(3))
    assert not torch.equal(after_a_step(3), after_a_step(4))


def test_the_second_stage_keeps_the_items_of_the_first(inputs: TrainingInput) -> None:
    torch.manual_seed(0)
    knobs = config(learning_rate=1e-3)
    network = RecformerSystem(knobs).network(inputs)
    matrices, fresh = [], Checkpoints(None, "")
    for rereads in (True, False):
        one = stage(network, inputs.splits, knobs, 3, rereads=rereads)
        log = MetricLog()
        train(one.trainer, one.plan, log, fresh)
        matrices.append(network.item_matrix.clone())
    assert torch.equal(*matrices)
    assert [row["step"] for row in log.rows] == [0, 1]  # 0: what it must better
    network.read_items()  # they are not those of the network as it stands now
    assert not torch.allclose(network.item_matrix, matrices[0], atol=1e-4)


def test_it_learns_transitions(
    inputs: TrainingInput, markov_splits: Splits, tmp_path: Path
) -> None:
    """One of ten at random: an NDCG of 0.454 in expectation."""
    inputs = replace(inputs, splits=markov_splits)
    knobs = config(
        dropout=0.0, max_items=1, batch_size=32, accumulation=1, pretrain_batch_size=32,
        pretrain_epochs=8, pretrain_learning_rate=5e-3, learning_rate=3e-4, second_epochs=2, validate_every=2,
    )  # fmt: skip
    system = RecformerSystem(knobs)
    network = train_system(system, inputs, tmp_path / "out", tmp_path / "scratch", "key")
    ranks = evaluate(system.model(network, inputs), inputs.splits, "test")
    assert ndcg(ranks.sampled, 10).mean() > 0.75


# Weights that others trained


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, markov_splits: Splits) -> Path:
    """As the hub has them: with a head, one token type, a wider window, and a tokenizer that has all marks."""
    folder = tmp_path_factory.mktemp("hub") / "longformer"
    tokenizer = train_tokenizer(markov_splits.catalog, 400)
    tokenizer.add_special_tokens({"pad_token": "<pad>", "mask_token": "<mask>"})
    torch.manual_seed(5)
    shape = LongformerConfig(
        attention_window=64, vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=tokenizer.pad_token_id + 129, type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LongformerForMaskedLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_weights_of_a_folder_are_loaded(inputs: TrainingInput, pretrained: Path) -> None:
    system = RecformerSystem(config(encoder=str(pretrained), pretrain_epochs=0))
    network = system.network(inputs)
    theirs = LongformerForMaskedLM.from_pretrained(pretrained).longformer
    assert torch.equal(
        network.encoder.embeddings.word_embeddings.weight, theirs.embeddings.word_embeddings.weight
    )
    types = network.encoder.embeddings.token_type_embeddings.weight
    assert torch.equal(types, theirs.embeddings.token_type_embeddings.weight.expand(4, -1))
    assert network.window == 16
    assert len(network.encoder.encoder.layer) == 2
    with torch.no_grad():
        network.eval().read_items()
    assert num_trained(network) == sum(part.numel() for part in network.parameters())
    (first, *_) = system.stages(network, inputs)
    assert np.isfinite(first.trainer.step(0)["loss"])


def test_the_error_names_an_unsuitable_encoder(
    inputs: TrainingInput, pretrained: Path, small_backbone: Path, tmp_path: Path
) -> None:
    def made(**changes: Any) -> Recformer:
        return RecformerSystem(config(**changes)).network(inputs)

    with pytest.raises(ConfigError, match="is no folder"):
        made(encoder=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="is a llama; expected a longformer"):
        made(encoder=str(small_backbone / "model"))
    with pytest.raises(ConfigError, match="has positions for 128 tokens at most"):
        made(encoder=str(pretrained), max_tokens=129)
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        made(encoder="allenai/longformer-base-4096")  # tests have no network
