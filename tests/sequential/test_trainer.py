"""Training the teacher: repeatable, resumable, and sensitive to order where the data are (specification 10.8, 10.9)."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmsrec.core.errors import DataError
from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Splits
from llmsrec.evaluation.per_user import EvaluationConfig, evaluate_all, summarise
from llmsrec.preprocessing.splitting import split
from llmsrec.ranking.metrics import hit_rate, ndcg
from llmsrec.ranking.protocol import evaluate
from llmsrec.sequential import epochs
from llmsrec.sequential import trainer as module
from llmsrec.sequential.losses import full_loss
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import (
    CausalTrainer,
    TeacherConfig,
    train_teacher,
    training_histories,
)
from llmsrec.training.batches import NegativeSampler
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.loop import MetricLog
from llmsrec.training.validation import validation_rows
from tests.conftest import interactions_of, splits_config

LOSSES = ["bce", "ce", "gbce", "sampled_softmax"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These matrices are so small that threads only wait for one another, long where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def teacher_config(**changes: Any) -> TeacherConfig:
    values: dict[str, Any] = {
        "embedding_size": 16, "num_blocks": 1, "num_heads": 1, "dropout": 0.2, "norm": "pre", "layers": "standard",
        "max_length": 10, "loss": "ce", "negatives": 4, "gbce_t": 0.75, "holdout": False,
        "epochs": 4, "batch_size": 64, "learning_rate": 0.01, "sampling": "shuffle", "keep_best": True,
        "validate_every": 1, "validation_users": 50, "validation_ranking": "sampled", "patience": 10, "seed": 3,
        "ligr_multiplier": 4,
    }  # fmt: skip
    return TeacherConfig(**{**values, **changes})


def trained(splits: Splits, **changes: Any) -> tuple[SASRec, MetricLog]:
    log = MetricLog()
    return train_teacher(splits, teacher_config(**changes), log, Checkpoints(None, "")), log


class Stopped(Exception):
    """The machine went away."""


class StoppingLog(MetricLog):
    """Raises at the validation after `epoch`."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def __call__(self, step: int, **metrics: float) -> None:
        super().__call__(step, **metrics)
        if step == self.epoch:
            raise Stopped


@pytest.mark.parametrize("loss", LOSSES)
def test_the_same_seed_gives_the_same_weights(markov_splits: Splits, loss: str) -> None:
    first, log = trained(markov_splits, loss=loss, epochs=2)
    torch.manual_seed(99)  # what was drawn before does not matter
    again, same = trained(markov_splits, loss=loss, epochs=2)
    assert again.digest == first.digest
    assert log.rows == same.rows
    assert not first.training


def test_another_seed_gives_other_weights(markov_splits: Splits) -> None:
    first, other = (trained(markov_splits, epochs=1, seed=seed)[0] for seed in (0, 1))
    assert first.digest != other.digest


@pytest.mark.parametrize(
    ("stop_at", "changes"),
    [
        (1, {}),
        (3, {"loss": "bce", "norm": "original", "sampling": "with_replacement"}),
        (4, {"loss": "gbce", "keep_best": False, "layers": "ligr"}),
        (4, {"loss": "sampled_softmax", "validate_every": 2}),
    ],
)
def test_an_interrupted_run_equals_an_uninterrupted_one(
    markov_splits: Splits, tmp_path: Path, stop_at: int, changes: dict[str, Any]
) -> None:
    """Bit for bit, metrics included; a run killed at its first validation has no checkpoint and starts again."""
    config = teacher_config(epochs=5, **changes)
    whole = MetricLog()
    expected = train_teacher(markov_splits, config, whole, Checkpoints(None, ""))
    checkpoints = Checkpoints(tmp_path / "scratch", "key")
    with pytest.raises(Stopped):
        train_teacher(markov_splits, config, StoppingLog(stop_at), checkpoints)
    state = checkpoints.load()
    assert (state["rows"][-1]["step"] if state else 0) == stop_at - config.validate_every
    torch.manual_seed(99)
    log = MetricLog()
    resumed = train_teacher(markov_splits, config, log, checkpoints)
    assert resumed.digest == expected.digest
    assert log.rows == whole.rows


def test_a_checkpoint_of_another_run_is_not_resumed(markov_splits: Splits, tmp_path: Path) -> None:
    expected, _ = trained(markov_splits, epochs=2)
    with pytest.raises(Stopped):
        train_teacher(
            markov_splits,
            teacher_config(seed=8),
            StoppingLog(2),
            Checkpoints(tmp_path / "scratch", "other"),
        )
    actual = train_teacher(
        markov_splits, teacher_config(epochs=2), MetricLog(), Checkpoints(tmp_path / "scratch", "k")
    )
    assert actual.digest == expected.digest


class Script:
    """Stands in for `validate`: gives these values, and keeps the weights that it saw."""

    def __init__(self, *values: float) -> None:
        self.values = values
        self.seen: list[str] = []

    def __call__(self, model: SASRec, splits: Splits, config: TeacherConfig) -> dict[str, float]:
        self.seen.append(model.digest)
        value = self.values[len(self.seen) - 1]
        return {"ndcg@10": value, "hr@10": value}


def test_early_stopping_returns_the_best_epoch(
    markov_splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is best; equal is no improvement; three validations without improvement stop."""
    script = Script(0.1, 0.4, 0.2, 0.4, 0.3, 0.9)
    monkeypatch.setattr(module, "validate", script)
    config = teacher_config(epochs=20, patience=3)
    checkpoints, log = Checkpoints(tmp_path / "scratch", "key"), MetricLog()
    model = train_teacher(markov_splits, config, log, checkpoints)
    assert [row["step"] for row in log.rows] == [1, 2, 3, 4, 5]
    assert model.digest == script.seen[1]
    again = train_teacher(markov_splits, config, MetricLog(), checkpoints)
    assert again.digest == model.digest  # a run that had stopped does not go on
    assert len(script.seen) == 5


def test_without_selection_the_last_epoch_counts(
    markov_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(0.9, 0.5, 0.4, 0.3)
    monkeypatch.setattr(module, "validate", script)
    model, log = trained(markov_splits, keep_best=False, patience=1)
    assert len(log.rows) == 4
    assert model.digest == script.seen[-1]
    assert len(set(script.seen)) == 4


def test_validations_come_at_their_epochs_and_at_the_end(markov_splits: Splits) -> None:
    _, log = trained(markov_splits, epochs=5, validate_every=2)
    assert [row["step"] for row in log.rows] == [2, 4, 5]


def test_the_log_tells_the_metrics_of_the_stored_candidates(markov_splits: Splits) -> None:
    model, log = trained(markov_splits, validation_users=None)
    best = max(log.rows, key=lambda row: row["ndcg@10"])
    ranks = evaluate(SequentialRanker(model), markov_splits, "valid", full=False).sampled
    assert best["hr@10"] == hit_rate(ranks, 10).mean()
    assert best["ndcg@10"] == ndcg(ranks, 10).mean()


@pytest.mark.parametrize(("loss", "count"), [("bce", 1), ("gbce", 4), ("sampled_softmax", 4)])
def test_every_epoch_draws_its_own_users_and_negatives(
    markov_splits: Splits, monkeypatch: pytest.MonkeyPatch, loss: str, count: int
) -> None:
    """BCE has one negative a position, the others as many as the config says."""
    orders, negatives = [], []
    users_of, draw = epochs.epoch_users, NegativeSampler.draw

    def recorded_users(*arguments: Any) -> Iterator[np.ndarray]:
        orders.append(list(users_of(*arguments)))
        return iter(orders[-1])

    def recorded_draw(self: NegativeSampler, users: np.ndarray, *arguments: Any) -> np.ndarray:
        negatives.append(draw(self, users, *arguments))
        return negatives[-1]

    monkeypatch.setattr(epochs, "epoch_users", recorded_users)
    monkeypatch.setattr(NegativeSampler, "draw", recorded_draw)
    trained(markov_splits, loss=loss, epochs=2)
    first, second = (np.concatenate(order) for order in orders)
    assert sorted(first) == sorted(second)
    assert (first != second).any()
    positions = int((markov_splits.train.lengths - 1).sum())
    steps = len(negatives) // 2
    for epoch in (negatives[:steps], negatives[steps:]):
        assert np.concatenate(epoch).shape == (positions, count)


def test_validation_may_rank_among_all_items(markov_splits: Splits) -> None:
    for ranking in ("sampled", "full"):
        model, log = trained(
            markov_splits, epochs=1, validation_users=None, validation_ranking=ranking
        )
        found = evaluate(SequentialRanker(model), markov_splits, "valid")
        ranks = getattr(found, ranking)
        assert log.rows[-1]["ndcg@10"] == pytest.approx(ndcg(ranks, 10).mean())
        assert log.rows[-1]["hr@10"] == pytest.approx(hit_rate(ranks, 10).mean())


def test_validation_users_are_a_fixed_sample() -> None:
    rows = validation_rows(1000, 100, 5)
    assert (rows == validation_rows(1000, 100, 5)).all()
    assert len(np.unique(rows)) == 100
    assert (np.diff(rows) > 0).all()
    assert (rows != validation_rows(1000, 100, 6)).any()
    for count in (None, 7, 8):
        assert validation_rows(7, count, 5).tolist() == list(range(7))


def test_holdout_leaves_the_last_training_item_out(markov_splits: Splits) -> None:
    train = markov_splits.train
    short, full = training_histories(markov_splits, True), training_histories(markov_splits, False)
    for user in range(markov_splits.num_users):
        assert short[user].tolist() == train[user].tolist()[:-1]
        assert full[user].tolist() == train[user].tolist()


@pytest.mark.parametrize("holdout", [True, False])
@pytest.mark.parametrize("loss", ["bce", "ce"])
def test_with_holdout_the_last_training_item_reaches_no_weight(
    markov_splits: Splits, loss: str, holdout: bool
) -> None:
    """Every user's last training item is made another: with holdout, the weights are the same bit for bit."""
    items = markov_splits.sequences.items.copy()
    last = markov_splits.sequences.offsets[:-1] + markov_splits.train_lengths - 1
    items[last] = items[last] % markov_splits.num_items + 1
    sequences = dataclasses.replace(markov_splits.sequences, items=items)
    changed = dataclasses.replace(markov_splits, sequences=sequences)
    first, other = (
        trained(splits, holdout=holdout, loss=loss, epochs=1, keep_best=False)[0].digest
        for splits in (markov_splits, changed)
    )
    assert (first == other) == holdout


def test_a_dataset_without_pairs_is_an_error(markov_splits: Splits) -> None:
    lonely = dataclasses.replace(
        markov_splits, train_lengths=np.ones_like(markov_splits.train_lengths)
    )
    with pytest.raises(DataError, match="two training purchases"):
        trained(lonely)


def test_users_with_one_training_purchase_are_skipped(markov_splits: Splits) -> None:
    lengths = markov_splits.train_lengths.copy()
    lengths[::2] = 1
    subset = dataclasses.replace(markov_splits, train_lengths=lengths)
    trainer = CausalTrainer(
        SASRec(teacher_config().network(subset.num_items)),
        subset.train,
        subset.num_items,
        teacher_config(),
    )
    assert (lengths[trainer.users] >= 2).all()
    assert trainer.steps_per_epoch == -(-int((lengths >= 2).sum()) // 64)
    assert trained(subset, epochs=1)[0].item_table.isfinite().all()


def test_the_loss_weighs_all_positions_alike_whatever_their_group() -> None:
    """Against one padded block: rows of 2 to 40 purchases come in three groups and must count by position."""
    draws = np.random.default_rng(0)
    rows = [draws.permutation(np.arange(1, 51))[:length].tolist() for length in (2, 3, 9, 17, 40)]
    config = teacher_config(max_length=40, dropout=0.0)
    torch.manual_seed(0)
    model = SASRec(config.network(50))
    trainer = CausalTrainer(model, from_rows(rows), 50, config)
    actual = trainer.loss(np.arange(len(rows)), draws)
    states, targets = [], []
    for row in rows:
        states += list(model(torch.tensor([row[:-1]]))[0])
        targets += row[1:]
    slow = full_loss(torch.stack(states) @ model.item_table[1:].T, torch.tensor(targets) - 1)
    torch.testing.assert_close(actual, slow)


@pytest.mark.parametrize("loss", LOSSES)
def test_training_learns_and_leaves_the_padding_at_zero(markov_splits: Splits, loss: str) -> None:
    model, log = trained(markov_splits, loss=loss, epochs=6, keep_best=False)
    assert log.rows[-1]["loss"] < 0.9 * log.rows[0]["loss"]
    assert (model.item_table[0] == 0).all()
    assert (model.item_table[1:].norm(dim=1) > 0).all()


def cost_of_shuffling(splits: Splits, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The teacher's NDCG@10 and the paired difference that shuffled histories make at test (specification E4)."""
    model, _ = trained(splits, loss="ce", norm="pre", validation_users=None, **changes)
    config = EvaluationConfig(bootstrap=500, shuffles=3, shuffle_window=None, seed=0)
    actual = evaluate_all({"teacher": SequentialRanker(model)}, splits, config)
    assert 0 < actual.similarity["teacher"].mean() < 1
    metrics = summarise(actual.table, splits, config, "synthetic")
    (gap,) = (row for row in metrics["differences"] if row["protocol"] == "sampled")
    return metrics["systems"]["teacher"]["sampled"], gap


def test_shuffling_costs_the_teacher_on_markov_sequences(markov_splits: Splits) -> None:
    quality, gap = cost_of_shuffling(markov_splits, epochs=20)
    assert quality["hr@1"]["low"] > 0.8  # it found the chain: chance is 0.1
    assert gap["high"] < 0
    assert gap["relative"] < -0.2


def exchangeable_histories(users: int, groups: int, size: int, seed: int) -> dict[str, list[str]]:
    """A user buys half of one group of items, in an order that means nothing."""
    draws = np.random.default_rng(seed)
    histories = {}
    for user in range(users):
        first = int(draws.integers(groups)) * size
        items = first + draws.permutation(size)[: size // 2]
        histories[f"U{user:04d}"] = [f"I{item:03d}" for item in items]
    return histories


def test_shuffling_costs_the_teacher_nothing_on_exchangeable_sequences() -> None:
    histories = exchangeable_histories(users=500, groups=4, size=20, seed=0)
    splits = split(interactions_of(histories), splits_config(negatives=19, generation_negatives=0))
    quality, gap = cost_of_shuffling(splits, epochs=15)
    assert quality["hr@10"]["low"] > 0.9  # it found the groups: chance is 0.5
    assert abs(gap["value"]) < 0.03  # on Markov sequences it is ten times as much


def test_ligr_layers_require_norm_pre() -> None:
    with pytest.raises(ValueError, match="set norm: pre"):
        teacher_config(layers="ligr", norm="post")
