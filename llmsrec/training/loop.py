"""The training loop: steps, validation, metrics by step, early stopping, resuming from checkpoints."""

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from llmsrec.core.files import write_json
from llmsrec.core.progress import Progress
from llmsrec.training import distributed
from llmsrec.training.checkpoints import Checkpoints

Rows = list[dict[str, int | float]]  # `step` and the metrics there
LossTerms = Mapping[str, float | Tensor]  # a tensor is read only when its number is needed


class MetricLog:
    """Metrics by step: a JSON list in a file (for `dvc plots`), and MLflow if MLFLOW_RUN_ID is set."""

    def __init__(self, path: Path | None = None) -> None:
        self.rows: Rows = []
        self.path = path
        self._client: Any = None
        if os.environ.get("MLFLOW_RUN_ID") and distributed.is_main_process():
            from mlflow.tracking import MlflowClient  # takes seconds to import

            self._client = MlflowClient()

    def __call__(self, step: int, **metrics: float) -> None:
        self.rows.append({"step": step, **metrics})
        if self._client is not None:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            self._client.log_batch(
                os.environ["MLFLOW_RUN_ID"],
                metrics=[
                    Metric(name.replace("@", "_at_"), value, now, step)
                    for name, value in metrics.items()
                ],
            )

    def restore(self, rows: Rows) -> None:
        """Replace the rows by those of the run that is resumed."""
        self.rows = list(rows)

    def save(self) -> None:
        if self.path is not None and distributed.is_main_process():
            write_json(self.path, self.rows)

    def load(self) -> None:
        """Restore the rows of the file."""
        if self.path is not None:
            self.restore(json.loads(self.path.read_text()))


@dataclass
class EarlyStopping:
    """Stops after `patience` validations without a strict improvement (specification 5, rows 10 and 13)."""

    patience: int
    best: float = -np.inf
    best_step: int = -1
    bad: int = 0

    def update(self, value: float, step: int) -> bool:
        """Whether `value` is the best so far; raises FloatingPointError if it is not finite."""
        if not np.isfinite(value):
            raise FloatingPointError(f"validation gave {value} at step {step}")
        improved = value > self.best
        if improved:
            self.best, self.best_step, self.bad = value, step, 0
        else:
            self.bad += 1
        return improved

    @property
    def stop(self) -> bool:
        return self.bad >= self.patience


@runtime_checkable  # tests check types at every call
class Trainer(Protocol):
    """A training by steps. What a step draws depends on its number and on `state` only."""

    @property
    def network(self) -> nn.Module:
        """The module with all trained parameters."""

    @property
    def steps_per_epoch(self) -> int: ...

    def step(self, step: int) -> LossTerms:
        """Run step number `step`, from 0; returns `loss` and, if there are several, its terms."""

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


class GradientTrainer(ABC):
    """The optimizer step and state of a trainer by gradient: weights, optimizer and torch's random state (dropout)."""

    optimizer: torch.optim.Optimizer

    @property
    @abstractmethod
    def network(self) -> nn.Module: ...

    def optimizer_step(self, loss: Tensor, learning_rate: float) -> None:
        """Backward pass, gradient sum over processes, update. A parameter group may have an `lr_multiplier`."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_multiplier", 1.0)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        distributed.sum_gradients(self.network.parameters())
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"][0])
        if len(state["random"]) == 1 + torch.cuda.device_count():  # the same kind of machine
            torch.cuda.set_rng_state_all(state["random"][1:])


@dataclass(frozen=True)
class TrainingPlan:
    """When a training validates, what selects the best weights, and when it ends."""

    name: str  # of the progress line
    validate: Callable[[], dict[str, float]]
    eval_steps: Sequence[
        int
    ]  # rising; 0 validates before the first step; the last ends the training
    patience: int  # validations without improvement
    select_by: str | None  # a metric of `validate`; None keeps the last weights
    steps_per_log_unit: int = 1  # metrics are logged at step // steps_per_log_unit


def train(trainer: Trainer, plan: TrainingPlan, log: MetricLog, checkpoints: Checkpoints) -> None:
    """Leave the network with its best weights; an interrupted run resumes from its last validation."""
    seed, eval_steps, total = torch.initial_seed(), set(plan.eval_steps), plan.eval_steps[-1]
    best, step, stopping = _start(trainer, plan, log, checkpoints)
    progress = Progress(plan.name, total - step, "steps")
    losses: list[LossTerms] = []
    while step < total and not stopping.stop:
        distributed.seed_step(seed, step)
        losses.append(trainer.step(step))
        step += 1
        progress.advance(note=partial("loss {:.3f}".format, losses[-1]["loss"]))
        if step not in eval_steps:
            continue
        metrics = plan.validate()
        means = {name: float(np.mean([float(row[name]) for row in losses])) for name in losses[0]}
        losses.clear()
        log(step // plan.steps_per_log_unit, **means, **metrics)
        if plan.select_by is None or stopping.update(metrics[plan.select_by], step):
            best = copy_weights(trainer.network)
        checkpoints.save(
            {"trainer": trainer.state(), "best": best, "step": step, "stopping": vars(stopping), "rows": log.rows}
        )  # fmt: skip
    trainer.network.load_state_dict(best)


def _start(
    trainer: Trainer, plan: TrainingPlan, log: MetricLog, checkpoints: Checkpoints
) -> tuple[dict[str, Tensor], int, EarlyStopping]:
    """The best weights so far, the next step and the early stopping, from the checkpoint if there is one."""
    weights = copy_weights(trainer.network)
    if state := checkpoints.load():
        trainer.restore(state["trainer"])
        log.restore(state["rows"])
        return state["best"], state["step"], EarlyStopping(**state["stopping"])
    stopping = EarlyStopping(plan.patience if plan.select_by else len(plan.eval_steps))
    if 0 in plan.eval_steps and plan.select_by:  # the initial weights are a candidate too
        metrics = plan.validate()
        log(0, **metrics)
        stopping.update(metrics[plan.select_by], 0)
    return weights, 0, stopping


def copy_weights(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict that later steps do not change."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
