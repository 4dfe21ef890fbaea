"""The quality and the time of a retraining that starts from the champion, against a training from scratch.

    python -m studies warm_start --dataset Video_Games --until 2018-01-01 --months 1 --seeds 0

reads artifacts/<dataset>/{interactions,splits,backbone}; the users are those of the splits. A champion is trained on
the purchases until `--months` before `--until`. Two others are trained on those before `--until`: one from scratch
(`fresh`) and one that starts from the champion (`warm`), whose student gets five epochs. Both rank the test users at
`--until`. Table: reports/studies/warm_start/<dataset>.csv; seconds are those of training with validation. Nothing is
cached.
"""

import time
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from llmsrec.data.splits import Splits
from llmsrec.evaluation.bootstrap import resampled_means
from llmsrec.evaluation.per_user import METRICS, PROTOCOLS, EvaluationConfig, per_user
from llmsrec.llm.backbone import load_backbone
from llmsrec.llm.ranker import RetrievalRanker, encode_items
from llmsrec.preprocessing.k_core import SplitsConfig
from llmsrec.preprocessing.splitting import split
from llmsrec.ranking.protocol import evaluate
from llmsrec.relational.interactions import Interactions
from llmsrec.relational.sql_engine import register
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import TeacherConfig, train_teacher
from llmsrec.serving.transfer import teacher_for_catalog
from llmsrec.student.config import StudentConfig
from llmsrec.student.model import LLMSRec
from llmsrec.student.trainer import fit_student, new_student
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.distributed import default_device
from llmsrec.training.loop import MetricLog
from llmsrec.training.seeding import seed_torch
from studies.commands import add_seeds_and_changes, parser_of, print_table, save, with_interval
from studies.config import Protocol, Settings, settings_of
from studies.results import numbers

MODELS = ("teacher", "student")
WARM_EPOCHS = 5  # of a student that starts from the champion


class History:
    """The purchases of a dataset's users, split as at any moment."""

    def __init__(self, dataset: str, settings: Settings) -> None:
        folder = Path("artifacts") / dataset
        self.settings = settings
        self.interactions = Interactions.load(folder / "interactions")
        self.users = Splits.load(folder / "splits").user_ids
        self.backbone = load_backbone(folder / "backbone", default_device())
        # the users were sampled when the splits were made
        self.config = replace(settings.load(SplitsConfig, "splits"), sample_rate=1.0)

    def at(self, day: pd.Timestamp) -> Splits:
        """The splits of the purchases before a day."""
        rows = self.interactions.rows
        earlier = rows.filter(rows.timestamp < day.value // 10**6)
        users = register(pa.table({"user_id": self.users}), rows.get_backend())
        earlier = earlier.semi_join(users, "user_id")
        return split(Interactions(earlier, self.interactions.items), self.config)


def trained(
    history: History, splits: Splits, seed: int, champion: tuple[Splits, LLMSRec] | None
) -> tuple[LLMSRec, dict[str, float]]:
    """The student of a seed and the seconds of training by model; both models start from `champion`, if given."""
    settings = history.settings
    teacher_config = replace(settings.load(TeacherConfig, "teacher"), seed=seed)
    student_config = replace(settings.load(StudentConfig, "student"), seed=seed)
    first_teacher: SASRec | None = None
    first_heads = None
    if champion is not None:
        before, model = champion
        first_teacher = teacher_for_catalog(model.teacher, before.catalog, splits.catalog)
        first_heads = model.heads.state_dict()
        student_config = replace(student_config, epochs=WARM_EPOCHS, center_heads_at_init=False)
    no_checkpoints = Checkpoints(None, "")
    start = time.perf_counter()
    teacher = train_teacher(
        splits, teacher_config, MetricLog(), no_checkpoints, default_device(), first_teacher
    )
    middle = time.perf_counter()
    seed_torch(student_config.seed)
    student = new_student(student_config, history.backbone, teacher, splits.catalog)
    if first_heads is not None:
        student.heads.load_state_dict(first_heads)
    student = fit_student(student, splits, student_config, MetricLog(), no_checkpoints)
    return student, {"teacher": middle - start, "student": time.perf_counter() - middle}


def user_metrics(student: LLMSRec, splits: Splits) -> dict[tuple[str, str], np.ndarray]:
    """NDCG@10 of each test user, by model and protocol."""
    vectors = encode_items(student, splits.num_items)
    rankers = (SequentialRanker(student.teacher), RetrievalRanker(student, vectors))
    at, values = METRICS.index("ndcg@10"), {}
    for model, ranker in zip(MODELS, rankers, strict=True):
        run = evaluate(ranker, splits, "test")
        for protocol in PROTOCOLS:
            values[model, protocol] = per_user(getattr(run, protocol))[:, at]
    return values


def compared(history: History, until: pd.Timestamp, months: int, seed: int) -> list[dict[str, Any]]:
    """A row for each model, start and protocol, of one seed."""
    before, now = history.at(until - pd.DateOffset(months=months)), history.at(until)
    new = len(now.sequences.items) - len(before.sequences.items)
    print(f"{new:,} of {len(now.sequences.items):,} purchases are new", flush=True)
    champion, _ = trained(history, before, seed, None)
    runs = {
        "fresh": trained(history, now, seed, None),
        "warm": trained(history, now, seed, (before, champion)),
    }
    values = {start: user_metrics(student, now) for start, (student, _) in runs.items()}
    protocol_config = history.settings.load(Protocol, "protocol")
    evaluation, rows = history.settings.load(EvaluationConfig, "evaluation"), []
    users = now.evaluated("test").users
    for model, protocol in product(MODELS, PROTOCOLS):
        columns = {start: values[start][model, protocol][None] for start in runs}
        columns["warm - fresh"] = columns["warm"] - columns["fresh"]
        for start, column in columns.items():
            drawn = resampled_means(column.T, protocol_config.bootstrap, evaluation.seed, users)
            seconds = runs[start][1][model] if start in runs else np.nan
            rows.append(
                {"system": model, "start": start, "protocol": protocol, "metric": "ndcg@10", "seed": seed,
                 **numbers(column, drawn[:, 0], users), "seconds": seconds,
                 "new_share": new / len(now.sequences.items)}
            )  # fmt: skip
    return rows


def show(table: pd.DataFrame, title: str) -> None:
    """A row for each model, start and seed."""
    rows = []
    for (model, start, seed), group in table.groupby(["system", "start", "seed"], sort=False):
        sign = "+" if str(start).startswith("warm -") else ""
        values = group[["value", "low", "high"]].to_numpy().tolist()
        cells = [with_interval(value, low, high, sign) for value, low, high in values]
        seconds = group["seconds"].iloc[0]
        seconds = "" if np.isnan(seconds) else f"{seconds:,.0f}"
        rows.append([f"{model}, {start}", str(seed), *cells, seconds])
    print_table(title, ["", "seed", *PROTOCOLS, "s"], rows)


def main(argv: list[str]) -> None:
    """The command `python -m studies warm_start`."""
    parser = parser_of("warm_start", __doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--until", type=date.fromisoformat, required=True, metavar="YYYY-MM-DD")
    parser.add_argument("--months", type=int, default=1, help="age of the champion's data")
    add_seeds_and_changes(parser)
    args = parser.parse_args(argv)
    history = History(args.dataset, settings_of(args.changes))
    rows: list[dict[str, Any]] = []
    for seed in args.seeds:
        rows += compared(history, pd.Timestamp(args.until), args.months, seed)
    table = pd.DataFrame(rows).assign(dataset=args.dataset, until=str(args.until))
    title = f"{args.dataset} at {args.until}, NDCG@10; the champion is {args.months} months older"
    show(table, title)
    save(table, "warm_start", args.dataset)
