"""The time that systems train and take to answer for all test users, and their memory (specification E10, table 9).

    python -m studies timing --dataset Video_Games --systems sasrec llmsrec --steps 50

reads artifacts/<dataset>/{splits,teacher,backbone}. The time of an epoch is that of `--steps` steps, after some to warm
up, times the steps of an epoch; a system of several trainings reports their sum, and each alone. Inference is the
preparation of the model (its items encoded) and the ranking of every test user; title generation is timed for `--users`
users, and scaled to all. Nothing is trained to its end: the time is the same. Each system runs in a process of its own,
whose peak memory is reported. Minutes of different hardware do not compare; ratios of two systems on one device do.
"""

import platform
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from benchmarks.figures import in_own_process
from llmsrec.core.names import name_option
from llmsrec.core.progress import Progress
from llmsrec.data.splits import Splits
from llmsrec.ranking.protocol import evaluate
from llmsrec.sequential.sasrec import SASRec
from llmsrec.systems.system import Answerer, Model, Stage, TrainingInput
from llmsrec.systems.training import num_trained
from llmsrec.training.distributed import default_device
from llmsrec.training.seeding import seed_torch
from studies.commands import parser_of, print_table, save
from studies.config import Settings
from studies.variants import variant_of

WARM_UP = 3  # steps
SHOWN = ("train_min_per_epoch", "inference_min", "peak_memory_mb", "peak_gpu_mb")
Timed = dict[str, float]
T = TypeVar("T")


def time_system(name: str, dataset: str, steps: int, users: int) -> Timed:
    """Minutes of training and inference of a variant, its size and its peak GPU memory."""
    artifacts = Path("artifacts") / dataset
    splits, teacher = Splits.load(artifacts / "splits"), SASRec.load(artifacts / "teacher")
    variant = variant_of(name, Settings())
    system = variant.system
    inputs = TrainingInput(splits, teacher, artifacts / variant.backbone, 0, default_device())
    seed_torch(inputs.seed)
    network = system.network(inputs).to(inputs.device)
    epochs = list(_epochs(name, system.stages(network, inputs), steps))
    stages = {f"stage_{n}_min_per_epoch": minutes for n, (minutes, _) in enumerate(epochs, start=1)}
    network.eval()
    model, preparation = _clocked(lambda: system.model(network, inputs))
    _, answers = _clocked(lambda: _answer(model, splits, users))
    total = len(splits.candidates["test"])
    if isinstance(model, Answerer):
        answers *= total / min(users, total)
    cuda = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else np.nan
    return {
        "train_min_per_epoch": sum(minutes for minutes, _ in epochs),
        **(stages if len(epochs) > 1 else {}),
        "steps_per_epoch": float(sum(count for _, count in epochs)),
        "prepare_min": preparation,
        "users_min": answers,
        "inference_min": preparation + answers,
        "trained_parameters": float(num_trained(network)),
        "peak_gpu_mb": cuda / 1e6,
    }


def _epochs(name: str, stages: Iterator[Stage], steps: int) -> Iterator[tuple[float, int]]:
    """Minutes of an epoch of each training, and its number of steps."""
    for number, stage in enumerate(stages, start=1):
        last = stage.plan.eval_steps[-1]
        warm = min(WARM_UP, last - 1)
        timed = min(steps, last - warm)
        progress = Progress(f"{name}, training {number}", warm + timed, "steps")
        _steps(stage, 0, warm, progress)
        _, minutes = _clocked(partial(_steps, stage, warm, timed, progress))
        yield minutes / timed * stage.trainer.steps_per_epoch, stage.trainer.steps_per_epoch


def _steps(stage: Stage, first: int, count: int, progress: Progress) -> None:
    for step in range(first, first + count):
        stage.trainer.step(step)
        progress.advance()


def _answer(model: Model, splits: Splits, users: int) -> None:
    if not isinstance(model, Answerer):
        evaluate(model, splits, "test", full=False)
        return
    rows = np.arange(min(users, len(splits.candidates["test"])))
    candidates = splits.generation_candidates["test"].take(rows)
    model.answers(splits.histories("test").take(rows), candidates.items)


def _clocked(work: Callable[[], T]) -> tuple[T, float]:
    """The result of a call, and its minutes."""
    _synchronize()
    start = time.perf_counter()
    result = work()
    _synchronize()
    return result, (time.perf_counter() - start) / 60


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _named_device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def main(argv: list[str]) -> None:
    """The command `python -m studies timing`."""
    parser = parser_of("timing", __doc__)
    parser.add_argument("--dataset", type=name_option, required=True)
    parser.add_argument("--systems", nargs="+", default=["llmsrec", "sasrec"])
    parser.add_argument("--steps", type=int, default=50, help="timed steps of each training")
    parser.add_argument("--users", type=int, default=200, help="timed users of title generation")
    args = parser.parse_args(argv)
    where, rows = _named_device(), []
    for name in args.systems:
        run = in_own_process(time_system, name, args.dataset, args.steps, args.users)
        for metric, value in {**run.result, "peak_memory_mb": run.peak_bytes / 1e6}.items():
            rows.append({"dataset": args.dataset, "system": name, "metric": metric, "value": value,
                         "device": where, "versus_paper": "not comparable"})  # fmt: skip
    table = pd.DataFrame(rows).dropna(subset="value")
    show(table, args.systems)
    save(table, "timing", args.dataset)


def show(table: pd.DataFrame, systems: list[str]) -> None:
    """A row for each system: minutes, and their ratios to those of the first system."""
    times = table.pivot(index="system", columns="metric", values="value").to_dict("index")
    columns = [name for name in SHOWN if name in times[systems[0]]]
    base, rows = times[systems[0]], []
    for name in systems:
        pairs = [(times[name][column], base[column]) for column in columns]
        cells = [(f"{value:,.3f}", f"{value / of:.2f}" if of else "") for value, of in pairs]
        rows.append([name, *(cell for pair in cells for cell in pair)])
    titles = [title for column in columns for title in (column.replace("_", " "), "ratio")]
    dataset, where = table["dataset"].tolist()[0], table["device"].tolist()[0]
    print_table(f"{dataset}, {where}; ratios to {systems[0]}", ["", *titles], rows)
