"""How long do systems train, and how long do they take to answer for a store's test users? (SPEC E10, table 9)

    python -m experiments timing --dataset Video_Games --systems sasrec,llmsrec --steps 50

reads artifacts/<dataset>/{splits,teacher,backbone}. An epoch is `--steps` steps, after some to warm up, times the steps
that an epoch has; a system of several trainings is told as their sum, and each alone. Inference is whole: what a model
prepares (its items encoded), then every test user ranked among its candidates; in mode G `--users` of them are asked,
and their time is told for all. Nothing is trained to its end, so the models know nothing; that takes no other time.
Each system runs in a process of its own, whose peak memory is told. Other hardware's minutes do not compare; ratios of
two systems on one device do.
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
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.figures import in_own_process
from experiments.commands import parser_of, save
from experiments.trained import PARAMS
from llmsrec.comparison.config import ComparisonConfig
from llmsrec.core.config import load_section
from llmsrec.core.progress import Progress
from llmsrec.data.splits import Splits
from llmsrec.llm.variants import Mode
from llmsrec.ranking.protocol import evaluate
from llmsrec.sequential.sasrec import SASRec
from llmsrec.systems.registry import RETRIEVAL, system_of
from llmsrec.systems.system import Answerer, Model, Stage, TrainingInput
from llmsrec.systems.training import num_trained
from llmsrec.training.distributed import default_device
from llmsrec.training.seeding import seed_torch

WARM_UP = 3  # steps
USUAL = ("sasrec", "llmsrec")
Timed = dict[str, float]
T = TypeVar("T")


def time_system(name: str, mode: Mode, dataset: str, steps: int, users: int) -> Timed:
    artifacts = Path("artifacts") / dataset
    splits, teacher = Splits.load(artifacts / "splits"), SASRec.load(artifacts / "teacher")
    system = system_of(name, mode, PARAMS)
    given = TrainingInput(splits, teacher, artifacts / "backbone", 0, default_device())
    seed_torch(given.seed)
    network = system.network(given).to(given.device)
    epochs = list(_epochs(name, system.stages(network, given), steps))
    told = {f"stage_{n}_min_per_epoch": minutes for n, (minutes, _) in enumerate(epochs, start=1)}
    network.eval()
    model, items = _clocked(lambda: system.model(network, given))
    _, answers = _clocked(lambda: _answer(model, splits, users))
    asked = len(splits.candidates["test"])
    if isinstance(model, Answerer):
        answers *= asked / min(users, asked)
    cuda = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else np.nan
    return {
        "train_min_per_epoch": sum(minutes for minutes, _ in epochs),
        **(told if len(epochs) > 1 else {}),
        "steps_per_epoch": float(sum(count for _, count in epochs)),
        "prepare_min": items,
        "users_min": answers,
        "inference_min": items + answers,
        "trained_parameters": float(num_trained(network)),
        "peak_gpu_mb": cuda / 1e6,
    }


def _epochs(name: str, stages: Iterator[Stage], steps: int) -> Iterator[tuple[float, int]]:
    """Minutes of an epoch of each training, and its steps."""
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
    """What it gives, and its minutes."""
    _wait()
    start = time.perf_counter()
    result = work()
    _wait()
    return result, (time.perf_counter() - start) / 60


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _named_device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def main(argv: list[str]) -> None:
    parser = parser_of("timing", __doc__)
    parser.add_argument("--dataset", required=True)
    usual = ",".join(name for name in USUAL if name in RETRIEVAL)
    parser.add_argument("--systems", default=usual, help="names, with commas between")
    parser.add_argument("--mode", default="retrieval", choices=("retrieval", "generation"))
    parser.add_argument("--steps", type=int, default=50, help="of each training, timed")
    parser.add_argument("--users", type=int, default=200, help="asked in mode generation")
    args = parser.parse_args(argv)
    where, rows = _named_device(), []
    for name in args.systems.split(","):
        run = in_own_process(time_system, name, args.mode, args.dataset, args.steps, args.users)
        for metric, value in {**run.result, "peak_memory_mb": run.peak_bytes / 1e6}.items():
            rows.append({"dataset": args.dataset, "system": name, "mode": args.mode, "metric": metric,
                         "value": value, "device": where, "beside": "not comparable"})  # fmt: skip
    table = pd.DataFrame(rows).dropna(subset="value")
    reference = load_section(ComparisonConfig, "comparison").reference
    Console(markup=False, highlight=False).print(shown(table, reference))
    save(table, "timing" if args.mode == "retrieval" else "timing_generation", args.dataset)


def shown(table: pd.DataFrame, reference: str) -> Table:
    """A row a system: minutes, and how many times those of the reference (of the first, where it is not timed)."""
    wide = table.pivot(index="system", columns="metric", values="value")
    names = list(dict.fromkeys(table["system"]))
    base = wide.loc[reference if reference in names else names[0]]
    told = ("train_min_per_epoch", "inference_min", "peak_memory_mb", "peak_gpu_mb")
    columns = [name for name in told if name in wide]
    grid = Table(
        title=f"{table['dataset'].iloc[0]}, {table['device'].iloc[0]}; ratios to {base.name}",
        box=SIMPLE, title_justify="left",
    )  # fmt: skip
    grid.add_column("")
    for column in columns:
        grid.add_column(column.replace("_", " "), justify="right")
        grid.add_column("ratio", justify="right")
    for name in names:
        pairs = [(wide.loc[name, column], base[column]) for column in columns]
        cells = [(f"{value:,.3f}", f"{value / of:.2f}" if of else "") for value, of in pairs]
        grid.add_row(name, *(cell for pair in cells for cell in pair))
    return grid
