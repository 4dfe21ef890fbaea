"""What every training shares: the loop, seeded draws, metrics by step, early stopping, checkpoints to resume from."""

import hashlib
import json
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llmsrec import parallel
from llmsrec.files import whole_folder, write_json
from llmsrec.progress import Progress

Rows = list[dict[str, int | float]]  # a step and its metrics
Terms = Mapping[str, float | Tensor]  # of a loss; a tensor is read when its number is wanted


def generator(*key: int) -> np.random.Generator:
    """Randomness decided by (seed, epoch, step...): a resumed run draws what the first would have."""
    return np.random.default_rng(key)


def device() -> torch.device:
    """Where this process computes when nobody says otherwise."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seed_torch(seed: int) -> None:
    """Same seed, same numbers: also where threads add into the same row, in whatever order they come."""
    torch.use_deterministic_algorithms(True, warn_only=True)  # on a GPU some have no such version
    torch.manual_seed(seed)


def fingerprint(*parts: Any) -> str:
    """Of configs and arrays: a checkpoint of another run is not resumed."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(str((part.dtype, part.shape)).encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")  # 1, 23 is not 12, 3
    return digest.hexdigest()


class MetricLog:
    """Metrics by step: a JSON list in a file (for `dvc plots`), and MLflow where there is a run (MLFLOW_RUN_ID)."""

    def __init__(self, path: Path | None = None) -> None:
        self.rows: Rows = []
        self.path = path
        self._client: Any = None
        if os.environ.get("MLFLOW_RUN_ID") and parallel.first():
            from mlflow.tracking import MlflowClient  # seconds to import: only when there is a run

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
        """The rows of the run that is resumed."""
        self.rows = list(rows)

    def save(self) -> None:
        if self.path is not None and parallel.first():
            write_json(self.path, self.rows)

    def load(self) -> None:
        """What was saved before."""
        if self.path is not None:
            self.restore(json.loads(self.path.read_text()))


@dataclass
class EarlyStopping:
    """Strict improvement selects; `patience` looks without one stop (SPEC 5, rows 10 and 13)."""

    patience: int
    best: float = -np.inf
    best_step: int = -1
    bad: int = field(default=0)

    def update(self, value: float, step: int) -> bool:
        """True when `value` is the best so far."""
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
    """A training, one step at a time; what a step draws is decided by its number, or kept in `state`."""

    @property
    def network(self) -> nn.Module:
        """All that is trained."""

    @property
    def steps_per_epoch(self) -> int: ...

    def step(self, step: int) -> Terms:
        """Step number `step`, from 0; the terms of its loss, `loss` first."""

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


class GradientTrainer(ABC):
    """What trainers by gradient keep to go on from: weights, the optimiser, and the state of chance (dropout)."""

    optimizer: torch.optim.Optimizer

    @property
    @abstractmethod
    def network(self) -> nn.Module: ...

    def descend(self, loss: Tensor, rate: float) -> None:
        """A step at this rate; a group of parameters may take a `share` of it. Of several processes each has a part of
        the loss's gradient."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parallel.sum_gradients(self.network.parameters())
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
        if len(state["random"]) == 1 + torch.cuda.device_count():  # else it goes on elsewhere
            torch.cuda.set_rng_state_all(state["random"][1:])


@dataclass(frozen=True)
class Plan:
    """When a training looks at how good it is, what selects, and when it ends."""

    name: str  # on the line of progress
    validate: Callable[[], dict[str, float]]
    looks: Sequence[int]  # after so many steps, rising; the last ends it; 0: also as it starts
    patience: int  # looks without a better one
    select_by: str | None  # a metric of `validate`; None keeps what stands at the end
    unit: int = 1  # metrics are logged by step // unit


def train(trainer: Trainer, plan: Plan, log: "MetricLog", checkpoints: "Checkpoints") -> None:
    """The network gets the weights of its best look; an interrupted run goes on from its last one."""
    seed, best, step = torch.initial_seed(), copied(trainer.network), 0
    stopping = EarlyStopping(plan.patience if plan.select_by else len(plan.looks))
    if state := checkpoints.load():
        trainer.restore(state["trainer"])
        best, step = state["best"], state["step"]
        stopping = EarlyStopping(**state["stopping"])
        log.restore(state["rows"])
    elif 0 in plan.looks and plan.select_by:  # what came before must be bettered
        metrics = plan.validate()
        log(0, **metrics)
        stopping.update(metrics[plan.select_by], 0)
    due, total = set(plan.looks), plan.looks[-1]
    progress = Progress(plan.name, total - step, "steps")
    losses: list[Terms] = []
    while step < total and not stopping.stop:
        parallel.seed_step(seed, step)
        losses.append(trainer.step(step))
        step += 1
        progress.advance(note=partial("loss {:.3f}".format, losses[-1]["loss"]))
        if step not in due:
            continue
        metrics = plan.validate()
        means = {name: float(np.mean([float(row[name]) for row in losses])) for name in losses[0]}
        losses.clear()
        log(step // plan.unit, **means, **metrics)
        if plan.select_by is None or stopping.update(metrics[plan.select_by], step):
            best = copied(trainer.network)
        checkpoints.save(
            {"trainer": trainer.state(), "best": best, "step": step, "stopping": vars(stopping), "rows": log.rows}
        )  # fmt: skip
    trainer.network.load_state_dict(best)


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


LAYOUT = 2  # of what trainers keep: what was kept in another is not resumed


class Checkpoints:
    """The newest state of a training, in safetensors; `load` gives it back only to the same run (`key`)."""

    def __init__(self, folder: Path | None, key: str) -> None:
        self.folder, self.key = folder, f"{LAYOUT} {key}"

    def save(self, state: dict[str, Any]) -> None:
        if self.folder is None or not parallel.first():
            return
        tensors: dict[str, torch.Tensor] = {}
        plain = _split(state, tensors)
        with whole_folder(self.folder) as aside:
            save_file(tensors, aside / "state.safetensors")
            (aside / "state.json").write_text(json.dumps({"key": self.key, "state": plain}))

    def load(self) -> dict[str, Any] | None:
        if self.folder is None or not (self.folder / "state.json").exists():
            return None
        document = json.loads((self.folder / "state.json").read_text())
        if document["key"] != self.key:
            return None
        tensors = load_file(self.folder / "state.safetensors")
        state: dict[str, Any] = _join(document["state"], tensors)
        return state

    def clear(self) -> None:
        if self.folder is not None and self.folder.exists() and parallel.first():
            # first, since without it nothing is loaded
            (self.folder / "state.json").unlink(missing_ok=True)
            shutil.rmtree(self.folder)


def _split(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """JSON with the tensors taken out and numbered; pairs, since JSON turns every key into a text."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().contiguous().clone()  # safetensors refuses shared memory
        return {"__tensor__": name}
    if isinstance(value, dict):
        return {"__dict__": [[key, _split(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_split(item, tensors) for item in value]
    return value


def _join(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if "__tensor__" in value:
            return tensors[value["__tensor__"]]
        return {key: _join(item, tensors) for key, item in value["__dict__"]}
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    return value
