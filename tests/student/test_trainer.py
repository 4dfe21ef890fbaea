"""Training the student: frozen means frozen, resuming is exact, and order is learned where there is order."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from llmsrec.data.splits import Splits
from llmsrec.finetuning import trainer as train_module
from llmsrec.finetuning.losses import catalogue_loss
from llmsrec.llm.backbone import Backbone
from llmsrec.sequential.sasrec import SASRec
from llmsrec.student.model import LLMSRec
from llmsrec.student.trainer import StudentTrainer, train_student
from llmsrec.training import loop
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.loop import MetricLog
from tests.student.test_exact import student_config

Build = Callable[..., LLMSRec]


def test_a_step_changes_only_the_heads(
    student: Build, backbone: Backbone, markov_splits: Splits
) -> None:
    model = student(backbone)
    trainer = StudentTrainer(model, markov_splits, student_config())
    frozen = [*backbone.model.parameters(), *model.teacher.parameters()]
    before = [parameter.clone() for parameter in frozen]
    heads = {name: value.clone() for name, value in model.heads.named_parameters()}
    for step in range(2):
        trainer.step(step)
    assert all(torch.equal(old, new) for old, new in zip(before, frozen, strict=True))
    assert all(parameter.grad is None for parameter in frozen)
    still = [name for name, value in model.heads.named_parameters() if value.equal(heads[name])]
    assert still == []


def test_the_teacher_is_in_evaluation_mode_in_training(
    student: Build, backbone: Backbone, markov_splits: Splits
) -> None:
    """Specification 6.1: its dropout is off, though the student is in training."""
    model = student(backbone)
    model.train()
    histories = markov_splits.train.take(np.arange(8))
    assert torch.equal(model.teacher.represent(histories), model.teacher.represent(histories))


class Stop(Exception):
    pass


class StoppingLog(MetricLog):
    """Fails after some validations, as an interrupted machine does."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def __call__(self, step: int, **metrics: float) -> None:
        if self.left == 0:
            raise Stop
        self.left -= 1
        super().__call__(step, **metrics)


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_run_equals_an_uninterrupted_one(
    backbone: Backbone,
    teacher: SASRec,
    markov_splits: Splits,
    tmp_path: Path,
    after: int,
) -> None:
    config = student_config(
        epochs=2, batch_size=100, validations_per_epoch=3, validation_users=40, patience=9,
        item_vector_dropout=0.2,
    )  # fmt: skip

    def run(log: MetricLog, folder: Path | None) -> LLMSRec:
        checkpoints = Checkpoints(folder, "key")
        return train_student(markov_splits, teacher, backbone, config, log, checkpoints)

    whole_log, log = MetricLog(), MetricLog()
    whole = run(whole_log, None)
    with pytest.raises(Stop):
        run(StoppingLog(after), tmp_path / "scratch")
    resumed = run(log, tmp_path / "scratch")
    assert log.rows == whole_log.rows
    for name, value in whole.heads.state_dict().items():
        assert torch.equal(value, resumed.heads.state_dict()[name])


@pytest.mark.parametrize(("select_by", "other"), [("hr@10", "ndcg@10"), ("ndcg@10", "hr@10")])
def test_the_learning_rate_decays_and_the_best_validation_is_kept(
    backbone: Backbone,
    teacher: SASRec,
    markov_splits: Splits,
    monkeypatch: pytest.MonkeyPatch,
    select_by: str,
    other: str,
) -> None:
    actual = iter([0.2, 0.5, 0.5, 0.4, 0.9])
    monkeypatch.setattr(
        train_module, "validate", lambda *_: {select_by: (value := next(actual)), other: 1 - value}
    )
    copies: list[dict[str, torch.Tensor]] = []
    copy = loop.copy_weights
    monkeypatch.setattr(
        loop, "copy_weights", lambda network: copies.append(copy(network)) or copies[-1]
    )
    config = student_config(
        epochs=5,
        batch_size=300,
        validations_per_epoch=1,
        patience=2,
        lr_schedule="decay",
        lr_decay=0.5,
        select_by=select_by,
    )
    log = MetricLog()
    model = train_student(markov_splits, teacher, backbone, config, log, Checkpoints(None, ""))
    assert [row[select_by] for row in log.rows] == [
        0.2,
        0.5,
        0.5,
        0.4,
    ]  # two validations without a gain
    rates = [row["learning_rate"] / config.learning_rate for row in log.rows]
    assert rates == pytest.approx([1, 0.5, 0.25, 0.125])
    assert len(copies) == 3  # the start, and the two strict gains
    assert all(
        torch.equal(value, copies[2][name]) for name, value in model.heads.state_dict().items()
    )


def test_projectors_and_soft_tokens_have_a_learning_rate_multiplier(
    student: Build, backbone: Backbone, markov_splits: Splits
) -> None:
    """Adam's first step moves every weight by the rate."""
    config = student_config(lr_schedule="decay", learning_rate=1e-3, projector_lr_multiplier=5.0)
    model = student(backbone)
    before = {name: value.clone() for name, value in model.heads.named_parameters()}
    StudentTrainer(model, markov_splits, config).step(0)
    moved = {
        name: float((value - before[name]).detach().abs().max())
        for name, value in model.heads.named_parameters()
    }
    inputs = {name for name in moved if name.startswith(("item_projector", "soft_tokens"))}
    assert len(inputs) == 7
    for name, change in moved.items():
        rate = 5e-3 if name in inputs else 1e-3
        assert 0.5 * rate < change < 1.01 * rate, name


def test_inclusion_probability_is_the_frequency_of_an_item(
    student: Build, backbone: Backbone, markov_splits: Splits
) -> None:
    config = student_config(
        examples="auto_regressive", batch_size=8, train_negatives=1, catalogue_negatives=3
    )
    trainer = StudentTrainer(student(backbone), markov_splits, config)
    count, steps = np.zeros(markov_splits.num_items + 1), 600
    draws = np.random.default_rng(0)
    for _ in range(steps):
        read_outs = trainer.examples.read_outs(draws.integers(len(trainer.examples), size=8))
        negatives = trainer.negatives.draw(trainer.users[read_outs], 1, draws)
        count[
            np.unique([*trainer.targets[read_outs], *negatives.ravel(), *trainer.pool.draw(draws)])
        ] += 1
    assert np.abs(count / steps - trainer.pool.inclusion_probability)[1:].max() < 0.1
    assert np.abs(count / steps - trainer.pool.inclusion_probability)[1:].mean() < 0.03


def test_with_the_whole_catalogue_drawn_the_loss_is_its_cross_entropy() -> None:
    torch.manual_seed(0)
    scores, targets = torch.randn(5, 9), torch.tensor([0, 3, 3, 8, 1])
    allowed = torch.rand(5, 9) < 0.7
    expected = []
    for row, target in enumerate(targets.tolist()):
        others = [item for item in range(9) if allowed[row, item] and item != target]
        among = torch.cat([scores[row, [target]], scores[row, others]])
        expected.append(-torch.log_softmax(among, 0)[0])
    actual = catalogue_loss(scores, targets, torch.ones(9), allowed)
    assert actual.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-6)


def test_the_pool_sums_to_the_catalogue_in_expectation(markov_splits: Splits) -> None:
    """The weighted sum over the items that come is, on average, the sum over all (Horvitz and Thompson)."""
    values = np.exp(np.random.default_rng(1).normal(size=20))
    chance = np.linspace(0.1, 0.9, 20)
    came = np.random.default_rng(2).random((40_000, 20)) < chance
    assert (came / chance @ values).mean() == pytest.approx(values.sum(), rel=0.01)


def test_settings_without_negatives_are_refused() -> None:
    with pytest.raises(ValueError, match="set train_negatives or in_batch"):
        student_config(train_negatives=0, in_batch=False, catalogue_negatives=0)
    with pytest.raises(ValueError, match="set in_batch: true"):
        student_config(in_batch=False, catalogue_negatives=5)
