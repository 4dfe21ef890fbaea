"""Is a retraining that goes on from the champion as good as a fresh one, and how much sooner is it done?

    python -m experiments warm_start --dataset Video_Games --until 2018-01-01 --months 1 --seeds 0

reads artifacts/<dataset>/{interactions,splits,backbone}; the users are those of the splits. A champion is trained on
all purchases before `until` less so many months. On those before `until` two others are trained: a fresh one, and one
that starts from the champion, whose student gets five epochs. Both are ranked on the test users at
`until`. Table: reports/experiments/warm_start/<dataset>.csv; seconds are of training, validation included.
"""

import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from experiments.commands import parser_of, save
from experiments.trained import PARAMS, settings
from llmsrec.core.config import from_mapping, load_section, read_section
from llmsrec.data.splits import Splits
from llmsrec.evaluation.bootstrap import interval, resampled_means
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

MODELS = ("teacher", "student")
WARM_EPOCHS = 5  # of a student that starts from the champion


class Store:
    """A store's users, as they stood at any moment."""

    def __init__(self, dataset: str) -> None:
        folder = Path("artifacts") / dataset
        self.interactions = Interactions.load(folder / "interactions")
        self.users = Splits.load(folder / "splits").user_ids
        self.backbone = load_backbone(folder / "backbone", default_device())
        # the users are drawn already
        self.config = replace(load_section(SplitsConfig, "splits"), sample_rate=1.0)

    def at(self, day: pd.Timestamp) -> Splits:
        rows = self.interactions.rows
        kept = rows.filter(rows.timestamp < day.value // 10**6)
        users = register(pa.table({"user_id": self.users}), rows.get_backend())
        kept = kept.semi_join(users, "user_id")
        return split(Interactions(kept, self.interactions.items), self.config)


def trained(
    store: Store, splits: Splits, changes: dict[str, Any], champion: tuple[Splits, LLMSRec] | None
) -> tuple[LLMSRec, dict[str, float]]:
    """Teacher and student, and the seconds of each; those that go on start from `champion`."""
    seed = {"seed": changes["seed"]}
    teaching = from_mapping(
        TeacherConfig, read_section("teacher", PARAMS) | seed, f"{PARAMS}: teacher"
    )
    learning = from_mapping(
        StudentConfig, read_section("student", PARAMS) | changes, f"{PARAMS}: student"
    )
    known: SASRec | None = None
    learned = None
    if champion is not None:
        before, model = champion
        known = teacher_for_catalog(model.teacher, before.catalog, splits.catalog)
        learned = model.heads.state_dict()
        learning = replace(learning, epochs=WARM_EPOCHS, center_heads_at_init=False)
    nowhere = Checkpoints(None, "")
    start = time.perf_counter()
    teacher = train_teacher(splits, teaching, MetricLog(), nowhere, default_device(), known)
    middle = time.perf_counter()
    seed_torch(learning.seed)
    student = new_student(learning, store.backbone, teacher, splits.catalog)
    if learned is not None:
        student.heads.load_state_dict(learned)
    student = fit_student(student, splits, learning, MetricLog(), nowhere)
    return student, {"teacher": middle - start, "student": time.perf_counter() - middle}


def ranked(student: LLMSRec, splits: Splits) -> dict[tuple[str, str], np.ndarray]:
    """NDCG@10 of each test user, by model and protocol."""
    vectors = encode_items(student, splits.num_items)
    rankers = (SequentialRanker(student.teacher), RetrievalRanker(student, vectors))
    at = METRICS.index("ndcg@10")
    found = {}
    for model, ranker in zip(MODELS, rankers, strict=True):
        run = evaluate(ranker, splits, "test")
        for protocol in PROTOCOLS:
            found[model, protocol] = per_user(getattr(run, protocol))[:, at]
    return found


def compared(
    store: Store, until: pd.Timestamp, months: int, changes: dict[str, Any]
) -> list[dict[str, Any]]:
    """A row for each model, way and protocol, of one seed."""
    before, now = store.at(until - pd.DateOffset(months=months)), store.at(until)
    new = len(now.sequences.items) - len(before.sequences.items)
    print(f"{new:,} of {len(now.sequences.items):,} purchases are new", flush=True)
    champion, _ = trained(store, before, changes, None)
    runs = {
        "fresh": trained(store, now, changes, None),
        "warm": trained(store, now, changes, (before, champion)),
    }
    values = {way: ranked(student, now) for way, (student, _) in runs.items()}
    rows = []
    for model in MODELS:
        for protocol in PROTOCOLS:
            own = {way: values[way][model, protocol] for way in runs}
            for way, column in {**own, "warm - fresh": own["warm"] - own["fresh"]}.items():
                seconds = runs[way][1][model] if way in runs else np.nan
                rows.append(
                    {"model": model, "variant": way, "protocol": protocol, "metric": "ndcg@10",
                     **_interval(column), "seconds": seconds, "seed": changes["seed"],
                     "users": len(column), "new_share": new / len(now.sequences.items)}
                )  # fmt: skip
    return rows


def _interval(column: np.ndarray) -> dict[str, float]:
    config = load_section(EvaluationConfig, "evaluation")
    means = resampled_means(column[:, None], config.bootstrap, config.seed)
    return interval(float(column.mean()), means[:, 0]).as_dict()


def show(rows: pd.DataFrame, title: str) -> None:
    table = Table(title=title, box=SIMPLE, title_justify="left")
    for column in ("", "seed", *PROTOCOLS, "s"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for (model, way, seed), some in rows.groupby(["model", "variant", "seed"], sort=False):
        sign = "+" if str(way).startswith("warm -") else ""
        cells = [
            f"{row.value:{sign}.4f} [{row.low:{sign}.3f}, {row.high:{sign}.3f}]"
            for row in some.itertuples()
        ]
        seconds = some["seconds"].iloc[0]
        table.add_row(
            f"{model}, {way}", str(seed), *cells, "" if np.isnan(seconds) else f"{seconds:,.0f}"
        )
    Console(markup=False, highlight=False).print(table)


def main(argv: list[str]) -> None:
    parser = parser_of("warm_start", __doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--until", type=date.fromisoformat, required=True, metavar="YYYY-MM-DD")
    parser.add_argument("--months", type=int, default=1, help="how old the champion's data is")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="*", default=[], dest="changes", metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    store = Store(args.dataset)
    rows: list[dict[str, Any]] = []
    for seed in args.seeds:
        changes = settings(args.changes) | {"seed": seed}
        rows += compared(store, pd.Timestamp(args.until), args.months, changes)
    table = pd.DataFrame(rows).assign(dataset=args.dataset, until=str(args.until))
    show(
        table,
        f"{args.dataset} at {args.until}, NDCG@10, seconds of training; the champion is {args.months} months older",
    )
    save(table, "warm_start", args.dataset)
