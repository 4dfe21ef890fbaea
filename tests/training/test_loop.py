"""The training loop: early stopping, checkpoints, metrics."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llmsrec.training.checkpoints import Checkpoints, fingerprint
from llmsrec.training.loop import EarlyStopping, MetricLog, TrainingPlan, train
from llmsrec.training.seeding import generator


def test_only_a_strictly_better_value_is_the_best() -> None:
    stopping = EarlyStopping(patience=3)
    assert [stopping.update(value, step) for step, value in enumerate([0.1, 0.1, 0.3, 0.2])] == [
        True,
        False,
        True,
        False,
    ]
    assert (stopping.best, stopping.best_step, stopping.bad) == (0.3, 2, 1)


def test_training_stops_after_patience_validations_without_improvement() -> None:
    stopping = EarlyStopping(patience=2)
    stopped = []
    for step, value in enumerate([0.1, 0.1, 0.2, 0.2, 0.2, 0.3]):
        stopping.update(value, step)
        stopped.append(stopping.stop)
    assert stopped == [False, False, False, False, True, False]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_or_infinity_is_an_error(value: float) -> None:
    with pytest.raises(FloatingPointError, match="at step 7"):
        EarlyStopping(patience=2).update(value, 7)


def test_early_stopping_resumes_from_its_saved_state(tmp_path: Path) -> None:
    first = EarlyStopping(patience=2)
    first.update(0.5, 1)
    first.update(0.4, 2)
    Checkpoints(tmp_path / "c", "key").save({"stopping": vars(first)})
    state = Checkpoints(tmp_path / "c", "key").load()
    assert state is not None
    assert EarlyStopping(**state["stopping"]) == first


class Run:
    """A tiny training with all the state a real one has: weights, moments, learning rate, dropout."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1, betas=(0.9, 0.98))

    def steps(self, first: int, last: int) -> None:
        for step in range(first, last):
            inputs = torch.from_numpy(generator(0, step).normal(size=(16, 4))).float()
            self.optimizer.zero_grad()
            self.model(inputs).square().mean().backward()
            self.optimizer.step()
            self.optimizer.param_groups[0]["lr"] *= 0.9

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "step": 3,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])

    def weights(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.model.parameters()]


class Worsening:
    """Every step lowers the validation metric by one."""

    def __init__(self) -> None:
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.network.weight, 5.0)

    steps_per_epoch = 1

    def step(self, step: int) -> dict[str, float]:
        with torch.no_grad():
            self.network.weight -= 1
        return {"loss": 0.0}

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])


@pytest.mark.parametrize(("eval_steps", "best"), [([1, 2, 3], 4.0), ([0, 1, 2, 3], 5.0)])
def test_a_validation_before_the_first_step_can_be_the_best(
    tmp_path: Path, eval_steps: list[int], best: float
) -> None:
    trainer, log = Worsening(), MetricLog()
    plan = TrainingPlan("x", lambda: {"it": trainer.network.weight.item()}, eval_steps, 2, "it")
    train(trainer, plan, log, Checkpoints(tmp_path / "c", "key"))
    assert trainer.network.weight.item() == best
    assert [row["step"] for row in log.rows] == eval_steps[
        :3
    ]  # the best, and two without a better one
    # resumed from the last validation: the one before the first step is not repeated
    again, second = Worsening(), MetricLog()
    train(again, plan, second, Checkpoints(tmp_path / "c", "key"))
    assert again.network.weight.item() == best
    assert second.rows == log.rows


def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole = Run()
    whole.steps(0, 6)
    begun = Run()
    begun.steps(0, 3)
    Checkpoints(tmp_path / "c", "key").save(begun.state())
    torch.manual_seed(99)  # another process would not have the generator's state
    resumed = Run()
    state = Checkpoints(tmp_path / "c", "key").load()
    assert state is not None
    resumed.restore(state)
    resumed.steps(state["step"], 6)
    assert all(map(torch.equal, resumed.weights(), whole.weights()))
    assert not all(map(torch.equal, resumed.weights(), begun.weights()))
    assert resumed.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]


def test_optimizer_state_keeps_integer_keys(tmp_path: Path) -> None:
    run = Run()
    run.steps(0, 1)
    Checkpoints(tmp_path / "c", "key").save(run.state())
    state = Checkpoints(tmp_path / "c", "key").load()
    assert state is not None
    assert list(state["optimizer"]["state"]) == [0, 1, 2, 3]
    for number, moments in run.optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            actual = state["optimizer"]["state"][number][name]
            assert actual.dtype == value.dtype
            assert torch.equal(actual, value)
    assert torch.equal(state["random"], torch.get_rng_state())


def test_a_checkpoint_round_trips_nested_values_and_all_dtypes(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    state = {
        "rows": [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 1e-9}],
        "none": None,
        "flag": True,
        "tensors": [shared, shared[::2], torch.tensor(3), torch.tensor([True, False])],
        "half": torch.ones(2, 2, dtype=torch.bfloat16).T,
        "a/b": torch.zeros(1),
        "a": {"b": torch.ones(1), 0: torch.full((1,), 2.0)},
        "empty": {},
    }
    Checkpoints(tmp_path / "c", "key").save(state)
    actual = Checkpoints(tmp_path / "c", "key").load()
    assert actual is not None
    assert list(actual) == list(state)
    assert (actual["rows"], actual["none"], actual["flag"], actual["empty"]) == (
        state["rows"],
        None,
        True,
        {},
    )
    for loaded, saved in zip(actual["tensors"], state["tensors"], strict=True):
        assert loaded.dtype == saved.dtype
        assert torch.equal(loaded, saved)
    assert torch.equal(actual["half"], state["half"])
    assert (actual["a/b"].item(), actual["a"]["b"].item(), actual["a"][0].item()) == (0, 1, 2)


def test_a_checkpoint_of_another_run_is_ignored(tmp_path: Path) -> None:
    Checkpoints(tmp_path / "c", "one config").save({"step": 5})
    assert Checkpoints(tmp_path / "c", "another config").load() is None
    assert Checkpoints(tmp_path / "c", "one config").load() == {"step": 5}


def test_the_newest_checkpoint_is_loaded_and_clear_removes_all(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "key")
    assert checkpoints.load() is None
    checkpoints.save({"step": 1, "weight": torch.zeros(2)})
    checkpoints.save({"step": 2, "weight": torch.ones(2)})
    actual = checkpoints.load()
    assert actual is not None
    assert (actual["step"], actual["weight"].tolist()) == (2, [1, 1])
    checkpoints.clear()
    assert checkpoints.load() is None
    assert list(tmp_path.iterdir()) == []
    checkpoints.clear()


def test_without_a_folder_nothing_is_kept() -> None:
    checkpoints = Checkpoints(None, "key")
    checkpoints.save({"step": 1})
    assert checkpoints.load() is None
    checkpoints.clear()


def test_a_fingerprint_depends_on_every_part() -> None:
    values = np.arange(6)
    parts = [
        ("config", values),
        ("confiG", values),
        ("config", values[::-1]),
        ("config", values.reshape(2, 3)),
        ("config", values.astype(np.int32)),
        (values, "config"),
        (1, 23),
        (12, 3),
    ]
    assert len({fingerprint(*part) for part in parts}) == len(parts)
    assert fingerprint("config", values) == fingerprint("config", np.arange(12)[:6])


def test_a_generator_depends_on_its_key_only() -> None:
    first = generator(0, 2, 7).integers(1_000_000, size=5).tolist()
    generator(0, 2, 8).integers(10)
    assert generator(0, 2, 7).integers(1_000_000, size=5).tolist() == first
    assert generator(0, 2, 8).integers(1_000_000, size=5).tolist() != first


@pytest.fixture
def no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


@pytest.mark.usefixtures("no_run")
def test_metrics_are_saved_by_step(tmp_path: Path) -> None:
    log = MetricLog(tmp_path / "reports" / "curve.json")
    log.restore([{"step": 1, "loss": 3.0}])
    log(2, loss=2.0, **{"hr@10": 0.25})
    log.save()
    assert json.loads((tmp_path / "reports" / "curve.json").read_text()) == [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 2.0, "hr@10": 0.25},
    ]


@pytest.mark.usefixtures("no_run")
def test_without_a_path_metrics_are_only_held() -> None:
    log = MetricLog()
    log(1, loss=2.0)
    log.save()
    assert log.rows == [{"step": 1, "loss": 2.0}]


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # MLflow's own
def test_metrics_are_logged_to_the_mlflow_run_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(address)
    run = client.create_run(client.create_experiment("tests")).info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    log = MetricLog(tmp_path / "curve.json")
    log(10, loss=0.5, **{"ndcg@10": 0.125})
    log(20, loss=0.25, **{"ndcg@10": 0.25})
    log.save()
    curves = {
        name: [(point.step, point.value) for point in client.get_metric_history(run, name)]
        for name in ("loss", "ndcg_at_10")
    }
    assert curves == {
        "loss": [(10, 0.5), (20, 0.25)],
        "ndcg_at_10": [(10, 0.125), (20, 0.25)],
    }
    assert [row["ndcg@10"] for row in json.loads((tmp_path / "curve.json").read_text())] == [
        0.125,
        0.25,
    ]
