"""What does a student taught on one store know of another's shoppers? (SPEC E8)

    python -m experiments cross_domain --source Toys_and_Games --target Video_Games --seeds 0 1

reads artifacts/<source>/{splits,backbone} and artifacts/<target>/splits. The source's teacher and student are those of
the other experiments, trained if they are not there; nothing is trained on the target. An item that the source's
teacher does not know gets the mean of its vectors (`mean`), or, where the two stores share it, its own (`shared`).
SASRec gets random rows for them, which is chance. Table: reports/experiments/cross_domain/<source>-<target>.csv.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from experiments.commands import parser_of, save
from experiments.study import TRAINED
from experiments.trained import PARAMS, settings, student_of, trained_teacher
from llmsrec.comparison.published import paper_table, published_in, verdict
from llmsrec.core.config import load_section, read_section
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import Popularity
from llmsrec.evaluation.bootstrap import interval, resampled_means
from llmsrec.evaluation.per_user import METRICS, EvaluationConfig, per_user
from llmsrec.llm.backbone import load_backbone
from llmsrec.llm.ranker import RetrievalRanker, encode_items
from llmsrec.ranking.protocol import evaluate
from llmsrec.ranking.ranker import Ranker
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.sasrec import SASRec
from llmsrec.serving.transfer import (
    mean_item_vectors,
    shared_items,
    teacher_for_catalog,
    with_item_vectors,
    with_teacher_and_catalog,
)
from llmsrec.training.distributed import default_device

SHOWN = ("hr@10", "ndcg@10")


def rankers_of(
    seed: int, source: Splits, target: Splits, folder: Path, changes: dict[str, Any]
) -> dict[str, Ranker]:
    """Models of the source that rank the target's items; `folder` holds what is trained on the source."""
    values = read_section("teacher", PARAMS) | {"seed": seed}
    teacher = trained_teacher(values, source, folder, name="teacher", where=str(PARAMS))
    backbone = load_backbone(Path("artifacts") / folder.name / "backbone", default_device())
    changes = changes | {"seed": seed}
    taught, _ = student_of(changes, source, teacher, backbone, folder)
    found: dict[str, Ranker] = {
        "sasrec, random rows": SequentialRanker(with_random_rows(teacher, target.num_items, seed))
    }
    abroad = {"mean": with_item_vectors(teacher, mean_item_vectors(teacher, target.num_items))}
    if len(shared_items(source.catalog, target.catalog)[0]):
        abroad["shared"] = teacher_for_catalog(teacher, source.catalog, target.catalog)
    for unknown, known in abroad.items():
        student = with_teacher_and_catalog(taught, known, target.catalog)
        vectors = encode_items(student, target.num_items)
        found[f"student, {unknown}"] = RetrievalRanker(student, vectors)
    return found


def with_random_rows(teacher: SASRec, num_items: int, seed: int) -> SASRec:
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randn((num_items + 1, teacher.embedding_size), generator=draws)
    rows = rows.to(teacher.item_table.device) * teacher.item_table[1:].std()
    rows[0] = 0
    return with_item_vectors(teacher, rows)


def tidy(
    source: str, target: str, values: dict[str, np.ndarray], config: EvaluationConfig
) -> list[dict[str, Any]]:
    """`values`: of each model, by seed, user and metric."""
    published, rows = paper_table(), []
    pair = f"{source}->{target}"
    for model, found in values.items():
        means = found.mean(axis=0)
        resampled = resampled_means(means, config.bootstrap, config.seed)
        for metric in SHOWN:
            at = METRICS.index(metric)
            mean = interval(float(means[:, at].mean()), resampled[:, at])
            name = "SASRec" if model.startswith("sasrec") else "LLM-SRec"
            paper = published_in(published, pair, "Table7", name, metric, {"cross_domain"})
            rows.append(
                {"dataset": pair, "model": model, "variant": "cross_domain",
                 "protocol": "sampled", "metric": metric, **mean.as_dict(), "seeds": len(found),
                 "users": len(means), "paper": paper,
                 "beside": verdict(pair, paper, mean.low, mean.high)}
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
    both, _ = shared_items(source.catalog, target.catalog)
    title = f"{args.source}->{args.target}, {len(both):,} items in both, chance HR@10 0.10"
    show(rows, title)
    save(pd.DataFrame(rows), "cross_domain", f"{args.source}-{args.target}")
