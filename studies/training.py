"""Train and evaluate the runs of studies. A training is found again by a key of its settings, code and data; an
interrupted training resumes; another evaluation of a trained system does not train it again."""

import gc
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from llmsrec.core.files import atomic_directory, exclusive_lock, read_json, write_json
from llmsrec.core.progress import Progress
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Part, Splits
from llmsrec.evaluation.per_user import EvaluationConfig
from llmsrec.llm.backbone import digest_of
from llmsrec.recommender.hybrid import HybridRanker
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import TeacherConfig
from llmsrec.systems.causal import CausalSystem
from llmsrec.systems.system import Answerer, Model, System, TrainingInput
from llmsrec.systems.training import WEIGHTS, num_trained, train_system
from llmsrec.training.checkpoints import fingerprint
from llmsrec.training.distributed import default_device
from llmsrec.training.loop import Rows
from studies.cache_keys import code_of, encoders_of, learned_from
from studies.config import Order, Protocol, Run, Settings
from studies.evaluation import (
    RESULT,
    EvaluationTask,
    RunResult,
    evaluate_ranker,
    evaluate_titles,
)
from studies.variants import parts_of, variant_of

VALIDATED = (
    "ndcg@10",
    "hr@10",
    "hr@1",
)  # a training without selection reports the first that it has
CURVES, KEY = "curves.json", "key.json"


@dataclass(frozen=True)
class ShuffledTraining(Splits):
    """The same splits with each training history permuted once (specification E2, E3); the others keep their order."""

    shuffle_seed: int

    @classmethod
    def of(cls, splits: Splits, seed: int) -> "ShuffledTraining":
        values = {field.name: getattr(splits, field.name) for field in fields(splits)}
        return cls(**values, shuffle_seed=seed)

    @property
    def train(self) -> Sequences:
        return super().train.shuffled(np.random.default_rng(self.shuffle_seed))


class StudyDataset:
    """The inputs that a dataset's runs share, and the cache of its trainings under scratch/<dataset>/studies/."""

    def __init__(self, dataset: str, settings: Settings, part: Part = "test") -> None:
        self.dataset, self.settings = dataset, settings
        self.artifacts = Path("artifacts") / dataset
        self.cache = Path("scratch") / dataset / "studies"
        self.protocol = settings.load(Protocol, "protocol")
        self.splits = Splits.load(self.artifacts / "splits")
        evaluation = settings.load(EvaluationConfig, "evaluation")
        self.task = EvaluationTask(self.splits, evaluation, self.protocol.generation_users, part)
        self._inputs: dict[Order, tuple[Splits, SASRec]] = {}

    def evaluate(self, runs: Sequence[Run]) -> dict[Run, RunResult]:
        """The results of all runs; those that are not in the cache are trained and evaluated."""
        for run in runs:
            self.system(run)  # a wrong setting is found before the first training
        progress = Progress("studies", len(runs), "trainings", interval=0.0)
        results = {}
        for run in runs:
            print(f"{run.system}, {run.order} histories, seed {run.seed}", file=sys.stderr)
            results[run] = self.result(run)
            progress.advance(note=f"{run.system} {run.name}")
        return results

    def result(self, run: Run) -> RunResult:
        """The result of one run."""
        with self._entry(run) as folder:
            result = folder / f"result-{self._evaluation_key[:12]}"
            if not (result / "facts.json").exists():
                self._evaluate(run, folder, result)
            return RunResult.load(result)

    def model(self, run: Run) -> tuple[Model, nn.Module]:
        """The trained model of a run and its network."""
        with self._entry(run) as folder:
            return self._model(run, folder)

    def key(self, run: Run) -> str:
        """The key of a training; that of a hybrid covers the keys of its parts."""
        own = key(self.system(run), self.inputs(run), run.order)
        parts = [self.key(part) for part in parts_of(run, self.settings).values()]
        return fingerprint(own, *parts) if parts else own

    def system(self, run: Run) -> System:
        return variant_of(run.system, self.settings).system

    def inputs(self, run: Run) -> TrainingInput:
        """What a run learns from. The teacher is the dataset's own for every seed; on shuffled histories it is a
        teacher that was trained on them too (specification E2: all stages)."""
        if run.order not in self._inputs:
            self._inputs[run.order] = self._splits_and_teacher(run.order)
        splits, teacher = self._inputs[run.order]
        backbone = self.artifacts / variant_of(run.system, self.settings).backbone
        return TrainingInput(splits, teacher, backbone, run.seed, default_device())

    def export(self, runs: Sequence[Run], folder: Path) -> None:
        """Write these runs, and no others, to `folder`: weights, curves, key and result of each."""
        self.evaluate(runs)
        with atomic_directory(folder) as partial:
            for run in runs:
                target = partial / run.system / run.name
                with self._entry(run) as entry:
                    shutil.copytree(entry / f"result-{self._evaluation_key[:12]}", target / RESULT)
                    for name in (WEIGHTS, CURVES, KEY):
                        shutil.copyfile(entry / name, target / name)

    @contextmanager
    def _entry(self, run: Run, run_key: str | None = None) -> Iterator[Path]:
        """The locked folder of a training, with what an export holds of it if nothing was trained here."""
        run_key = run_key or self.key(run)
        folder = self.cache / run_key[:16]
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(folder):
            if not (folder / KEY).exists():
                exports = self.artifacts.glob(f"studies/*/{run.system}/{run.name}/{KEY}")
                for file in (file for file in exports if read_json(file) == run_key):
                    for name in (CURVES, WEIGHTS):
                        shutil.copyfile(file.with_name(name), folder / name)
                write_json(folder / KEY, run_key)
            yield folder

    def _model(self, run: Run, folder: Path) -> tuple[Model, nn.Module]:
        system, inputs = self.system(run), self.inputs(run)
        network = _train(system, inputs, folder)
        parts = parts_of(run, self.settings).items()
        models: dict[str, Any] = {name: self.model(part)[0] for name, part in parts}
        return system.model(network, replace(inputs, models=models)), network

    def _evaluate(self, run: Run, folder: Path, result: Path) -> None:
        model, network = self._model(run, folder)
        shuffles = self.task.evaluation.shuffles
        shuffled = run.order == "original" and shuffles > 0  # specification E4
        answers = folder / f"answers-{result.name}"
        if isinstance(model, Answerer):
            values = evaluate_titles(model, self.task, answers, shuffled=shuffled)
        else:
            values = evaluate_ranker(model, self.task, shuffled=shuffled)
        facts = {
            "task": self.task.digest,
            "parameters": num_trained(network),
            "weights": model.weights if isinstance(model, HybridRanker) else {},
            "stages": [selected(**curve) for curve in read_json(folder / CURVES)],
        }
        RunResult(values, facts).save(result)
        shutil.rmtree(answers, ignore_errors=True)
        del network, model
        _free_memory()

    def _splits_and_teacher(self, order: Order) -> tuple[Splits, SASRec]:
        teacher = SASRec.load(self.artifacts / "teacher")
        if order == "original":
            return self.splits, teacher
        splits = ShuffledTraining.of(self.splits, self.protocol.shuffle_seed)
        config = self.settings.load(TeacherConfig, "teacher")
        system, run = CausalSystem(config), Run("teacher", order, config.seed)
        inputs = TrainingInput(
            splits, teacher, self.artifacts / "backbone", run.seed, default_device()
        )
        with self._entry(run, key(system, inputs, order)) as folder:
            network = _train(system, inputs, folder)
        assert isinstance(network, SASRec)
        return splits, network

    @cached_property
    def _evaluation_key(self) -> str:
        return fingerprint(self.task.digest, code_of(RunResult))


def key(system: System, inputs: TrainingInput, order: Order) -> str:
    """A digest of all that a training depends on: settings, code, teacher, backbone, encoders and data."""
    pinned = read_json(inputs.backbone / "backbone.json")
    return fingerprint(
        system, order, inputs.seed, code_of(type(system), train_system), inputs.teacher.digest,
        (digest_of(pinned), pinned["dtype"]), encoders_of(system), *learned_from(inputs.splits),
    )  # fmt: skip


def _train(system: System, inputs: TrainingInput, folder: Path) -> nn.Module:
    """The trained network; the state of an unfinished training stays in the folder."""
    state = folder / "state"
    network = train_system(system, inputs, folder, state, read_json(folder / KEY))
    shutil.rmtree(state, ignore_errors=True)
    return network


def selected(selected_by: str | None, validations: Rows) -> dict[str, int | float]:
    """The validation whose weights were selected, and the step at which the training ended."""
    last = validations[-1]
    if selected_by is not None:
        best = max(validations, key=lambda row: row[selected_by])
        return {
            "ended": last["step"],
            "step": best["step"],
            f"valid {selected_by}": best[selected_by],
        }
    metric = next((name for name in VALIDATED if name in last), None)
    reported: dict[str, Any] = {} if metric is None else {f"valid {metric}": last[metric]}
    return {"ended": last["step"], "step": last["step"], **reported}


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
