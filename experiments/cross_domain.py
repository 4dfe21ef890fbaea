"""What does a student taught on one store know of another's shoppers? (SPEC E8)

    python -m experiments cross_domain --source Toys_and_Games --target Video_Games --seeds 0 1

reads artifacts/<source>/{splits,backbone} and artifacts/<target>/splits. The source's teacher and student are those of
the other experiments, trained if they are not there; nothing is trained on the target. An item that the source's
teacher does not know gets the mean of its vectors (`mean`), or, where the two stores share it, its own (`shared`).
SASRec gets random rows for them, which is chance. Table: reports/experiments/cross_domain/<source>-<target>.csv.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from experiments.commands import parser_of, save
from experiments.published import beside, paper_table, published_in
from experiments.study import TRAINED
from experiments.trained import PARAMS, device, settings, student_of, teacher_of
from llmsrec.config import load_section, read_section
from llmsrec.data.catalog import Catalog
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import Popularity
from llmsrec.evaluation.bootstrap import interval, resampled_means
from llmsrec.evaluation.protocol import evaluate
from llmsrec.evaluation.ranker import Ranker
from llmsrec.evaluation.results import METRICS, EvaluationConfig, per_user
from llmsrec.student.backbone import load_backbone
from llmsrec.student.model import LLMSRec
from llmsrec.student.ranker import StudentRanker, encode_items
from llmsrec.teacher.ranker import TeacherRanker
from llmsrec.teacher.sasrec import SASRec

SHOWN = ("hr@10", "ndcg@10")


def rankers_of(
    seed: int, source: Splits, target: Splits, folder: Path, changes: dict[str, Any]
) -> dict[str, Ranker]:
    """Models of the source that rank the target's items; `folder` holds what is trained on the source."""
    values = read_section("teacher", PARAMS) | {"seed": seed}
    teacher = teacher_of(values, source, folder, name="teacher", where=str(PARAMS))
    backbone = load_backbone(Path("artifacts") / folder.name / "backbone", device())
    changes = changes | {"seed": seed}
    taught, _ = student_of(changes, source, teacher, backbone, folder)
    found: dict[str, Ranker] = {
        "sasrec, random rows": TeacherRanker(abroad(teacher, source, target, "random", seed))
    }
    both, _ = shared(source.catalog, target.catalog)
    for unknown in ("mean", "shared") if len(both) else ("mean",):
        known = abroad(teacher, source, target, unknown, seed)
        student = LLMSRec(taught.config, backbone, known, target.catalog)
        student.heads.load_state_dict(taught.heads.state_dict())
        student.eval()
        vectors = encode_items(student, target.num_items)
        found[f"student, {unknown}"] = StudentRanker(student, vectors)
    return found


@torch.no_grad()
def abroad(teacher: SASRec, source: Splits, target: Splits, unknown: str, seed: int) -> SASRec:
    """The teacher with a table for the target's items."""
    model = SASRec(replace(teacher.config, num_items=target.num_items))
    state = teacher.state_dict()
    table = teacher.item_table
    draws = torch.Generator().manual_seed(seed)
    rows = table[1:].mean(dim=0).expand(target.num_items + 1, -1).clone()
    if unknown == "random":
        rows = table[1:].std() * torch.randn(rows.shape, generator=draws)
    rows[0] = 0
    if unknown == "shared":
        here, there = shared(source.catalog, target.catalog)
        rows[torch.from_numpy(there)] = table[torch.from_numpy(here)]
    model.load_state_dict(state | {"item_embedding.weight": rows})
    return model.eval()


def shared(source: Catalog, target: Catalog) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the items that both stores sell, in each."""
    both = source.items[["item_id", "item_index"]].merge(
        target.items[["item_id", "item_index"]], on="item_id"
    )
    return both["item_index_x"].to_numpy(copy=True), both["item_index_y"].to_numpy(copy=True)


def tidy(
    source: str, target: str, values: dict[str, np.ndarray], config: EvaluationConfig
) -> list[dict[str, Any]]:
    """`values`: of each model, by seed, user and metric."""
    published, rows = paper_table(), []
    compared = target if source == "Electronics" else ""  # the paper's source
    for model, found in values.items():
        means = found.mean(axis=0)
        resampled = resampled_means(means, config.bootstrap, config.seed)
        for metric in SHOWN:
            at = METRICS.index(metric)
            mean = interval(float(means[:, at].mean()), resampled[:, at])
            name = "SASRec" if model.startswith("sasrec") else "LLM-SRec"
            paper = published_in(published, compared, "Table7", name, metric, {"cross_domain"})
            rows.append(
                {"dataset": f"{source}->{target}", "model": model, "variant": "cross_domain",
                 "protocol": "sampled", "metric": metric, **mean.as_dict(), "seeds": len(found),
                 "users": len(means), "paper": paper,
                 "beside": beside(compared, paper, mean.low, mean.high)}
            )  # fmt: skip
    return rows


def show(rows: list[dict[str, Any]], title: str) -> None:
    table = Table(title=title, box=SIMPLE, title_justify="left")
    table.add_column("trained on the source")
    for metric in SHOWN:
        table.add_column(metric.upper(), justify="right")
    for model in dict.fromkeys(row["model"] for row in rows):
        cells = [row for row in rows if row["model"] == model]
        table.add_row(
            model, *(f"{row['value']:.4f} [{row['low']:.3f}, {row['high']:.3f}]" for row in cells)
        )
    Console(markup=False, highlight=False).print(table)


def main(argv: list[str]) -> None:
    parser = parser_of("cross_domain", __doc__)
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="*", default=[], dest="changes", metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    source, target = (
        Splits.load(Path("artifacts") / name / "splits") for name in (args.source, args.target)
    )
    config = load_section(EvaluationConfig, "evaluation")
    found: dict[str, list[np.ndarray]] = {}
    for seed in args.seeds:
        rankers = rankers_of(seed, source, target, TRAINED / args.source, settings(args.changes))
        for name, ranker in {**rankers, "popularity in the target": Popularity(target)}.items():
            ranks = evaluate(ranker, target, "test", full=False, scores_mb=config.scores_mb)
            found.setdefault(name, []).append(per_user(ranks.sampled))
    stacked = {name: np.stack(values) for name, values in found.items()}
    rows = tidy(args.source, args.target, stacked, config)
    both, _ = shared(source.catalog, target.catalog)
    title = f"{args.source}->{args.target}, {len(both):,} items in both, chance HR@10 0.10"
    show(rows, title)
    save(pd.DataFrame(rows), "cross_domain", f"{args.source}-{args.target}")
