"""How long do teacher and student train, and how long do they take to rank a store's test users? (SPEC E10)

    python -m experiments timing --dataset Video_Games --steps 50

reads artifacts/<dataset>/{splits,backbone}. An epoch of the student is `--steps` of its steps, after some to warm up,
times the steps that an epoch has; the teacher's is one whole epoch after another. Inference is whole: items encoded,
and every test user ranked among its candidates. Each model runs in a process of its own, whose peak memory is told.
Other hardware's minutes do not compare; ratios of two models on one device do.
"""

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.figures import in_own_process
from experiments.commands import parser_of, save
from experiments.trained import PARAMS, device, settings
from llmsrec.config import from_mapping, load_section, read_section
from llmsrec.data.splits import Splits
from llmsrec.evaluation.protocol import evaluate
from llmsrec.evaluation.ranker import Ranker
from llmsrec.progress import Progress
from llmsrec.student.backbone import load_backbone
from llmsrec.student.config import StudentConfig
from llmsrec.student.ranker import StudentRanker, encode_items
from llmsrec.student.train import Trainer as StudentTrainer
from llmsrec.student.train import new_student
from llmsrec.teacher.ranker import TeacherRanker
from llmsrec.teacher.sasrec import SASRec
from llmsrec.teacher.train import TeacherConfig
from llmsrec.teacher.train import Trainer as TeacherTrainer
from llmsrec.training import seed_torch

WARM_UP = 3  # steps
Timed = dict[str, float]


def time_teacher(dataset: str) -> Timed:
    splits, config = _splits(dataset), load_section(TeacherConfig, "teacher")
    seed_torch(config.seed)
    model = SASRec(config.network(splits.num_items)).to(device())
    trainer = TeacherTrainer(model, splits.train, splits.num_items, config)
    steps = trainer.steps_per_epoch
    progress = Progress("teacher", 2 * steps, "steps")
    for step in range(2 * steps):
        if step == steps:
            _wait()
            start = time.perf_counter()
        trainer.step(step)
        progress.advance()
    _wait()
    epoch = time.perf_counter() - start
    start = time.perf_counter()
    _rank(TeacherRanker(model.eval()), splits)
    return _timed(epoch, steps, 0.0, time.perf_counter() - start)


def time_student(dataset: str, changes: dict[str, Any], steps: int) -> Timed:
    splits = _splits(dataset)
    section = read_section("student", PARAMS) | changes
    config = from_mapping(StudentConfig, section, f"{PARAMS}: student")
    seed_torch(config.seed)
    backbone = load_backbone(Path("artifacts") / dataset / "backbone", device())
    network = load_section(TeacherConfig, "teacher").network(splits.num_items)
    model = new_student(config, backbone, SASRec(network), splits.catalog)
    trainer = StudentTrainer(model, splits, config)
    trainer.start()
    progress = Progress("student", WARM_UP + steps, "steps")
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            _wait()
            start = time.perf_counter()
        trainer.step(step)
        progress.advance()
    _wait()
    epoch = (time.perf_counter() - start) / steps * trainer.steps_per_epoch
    model.eval()
    start = time.perf_counter()
    vectors = encode_items(model, splits.num_items)
    items = time.perf_counter() - start
    start = time.perf_counter()
    _rank(StudentRanker(model, vectors), splits)
    return _timed(epoch, trainer.steps_per_epoch, items, time.perf_counter() - start)


def _splits(dataset: str) -> Splits:
    return Splits.load(Path("artifacts") / dataset / "splits")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _rank(ranker: Ranker, splits: Splits) -> None:
    evaluate(ranker, splits, "test", full=False)
    _wait()


def _timed(epoch: float, steps: int, items: float, users: float) -> Timed:
    cuda = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else np.nan
    return {
        "train_min_per_epoch": epoch / 60,
        "steps_per_epoch": float(steps),
        "encode_items_min": items / 60,
        "rank_users_min": users / 60,
        "inference_min": (items + users) / 60,
        "peak_gpu_mb": cuda / 1e6,
    }


def _named_device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def main(argv: list[str]) -> None:
    parser = parser_of("timing", __doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--steps", type=int, default=50, help="of the student, timed")
    parser.add_argument("--set", nargs="*", default=[], dest="changes", metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    runs = {
        "teacher": in_own_process(time_teacher, args.dataset),
        "student": in_own_process(time_student, args.dataset, settings(args.changes), args.steps),
    }
    where, rows = _named_device(), []
    for model, run in runs.items():
        for metric, value in {**run.result, "peak_memory_mb": run.peak_bytes / 1e6}.items():
            rows.append({"dataset": args.dataset, "model": model, "metric": metric, "value": value,
                         "device": where, "beside": "not comparable"})  # fmt: skip
    table = pd.DataFrame(rows).dropna(subset="value")
    shown = Table(title=f"{args.dataset}, {where}", box=SIMPLE, title_justify="left")
    for column in ("", *runs, "student / teacher"):
        shown.add_column(column, justify="right" if column else "left")
    for metric, values in table.groupby("metric", sort=False)["value"]:
        first, second = values
        ratio = f"{second / first:.1f}" if first else ""
        shown.add_row(str(metric).replace("_", " "), f"{first:,.3f}", f"{second:,.3f}", ratio)
    Console(markup=False, highlight=False).print(shown)
    save(table, "timing", args.dataset)
