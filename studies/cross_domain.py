"""What a student trained on one dataset knows of another dataset's users (specification E8).

    python -m studies cross_domain --source Toys_and_Games --target Video_Games --seeds 0 1

reads artifacts/<source>/{splits,teacher,backbone} and artifacts/<target>/splits. The source's student is the variant
`llmsrec` of the other studies; nothing is trained on the target. An item that the source's teacher does not know gets
the mean of its vectors (`mean`), or, where both datasets have it, its own (`shared`). SASRec gets random vectors for
such items, which is chance. Table: reports/studies/cross_domain/<source>-<target>.csv.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from llmsrec.core.names import name_option
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import Popularity
from llmsrec.evaluation.bootstrap import resampled_means
from llmsrec.evaluation.per_user import METRICS, per_user
from llmsrec.llm.ranker import RetrievalRanker, encode_items
from llmsrec.llm.retrieval import RetrievalModel
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
from studies.commands import add_seeds_and_changes, parser_of, print_table, save, with_interval
from studies.config import Run, settings_of
from studies.published import paper_table, published_in, versus_paper
from studies.results import Users, numbers
from studies.training import StudyDataset

SHOWN = ("hr@10", "ndcg@10")


def rankers_of(source: StudyDataset, target: Splits, seed: int) -> dict[str, Ranker]:
    """Models of the source that rank the target's items."""
    _, student = source.model(Run("llmsrec", "original", seed))
    assert isinstance(student, RetrievalModel)
    teacher, catalog = student.teacher, source.splits.catalog
    random = with_random_vectors(teacher, target.num_items, seed)
    rankers: dict[str, Ranker] = {"sasrec, random vectors": SequentialRanker(random)}
    means = mean_item_vectors(teacher, target.num_items)
    teachers = {"mean": with_item_vectors(teacher, means)}
    if len(shared_items(catalog, target.catalog)[0]):
        teachers["shared"] = teacher_for_catalog(teacher, catalog, target.catalog)
    for name, moved in teachers.items():
        model = with_teacher_and_catalog(student, moved, target.catalog)
        vectors = encode_items(model, target.num_items)
        rankers[f"student, {name}"] = RetrievalRanker(model, vectors)
    return rankers


def with_random_vectors(teacher: SASRec, num_items: int, seed: int) -> SASRec:
    """The teacher with random item vectors of the spread of its own."""
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randn((num_items + 1, teacher.embedding_size), generator=draws)
    rows = rows.to(teacher.item_table.device) * teacher.item_table[1:].std()
    rows[0] = 0
    return with_item_vectors(teacher, rows)


def tidy(
    pair: str, values: dict[str, np.ndarray], users: Users, source: StudyDataset
) -> list[dict[str, Any]]:
    """A row for each model and metric; `values` are by seed, target and metric, `users` the users of the targets."""
    paper, rows = paper_table(), []
    for model, table in values.items():
        resamples, seed = source.protocol.bootstrap, source.task.evaluation.seed
        drawn = resampled_means(table.mean(axis=0), resamples, seed, users)
        for metric in SHOWN:
            at = METRICS.index(metric)
            row = numbers(table[:, :, at], drawn[:, at], users)
            name = "SASRec" if model.startswith("sasrec") else "LLM-SRec"
            published = published_in(paper, pair, "Table7", name, metric, {"cross_domain"})
            rows.append(
                {"dataset": pair, "system": model, "protocol": "sampled", "metric": metric, **row,
                 "paper": published, "versus_paper": versus_paper(pair, published, row["low"], row["high"])}
            )  # fmt: skip
    return rows


def main(argv: list[str]) -> None:
    """The command `python -m studies cross_domain`."""
    parser = parser_of("cross_domain", __doc__)
    parser.add_argument("--source", type=name_option, required=True)
    parser.add_argument("--target", type=name_option, required=True)
    add_seeds_and_changes(parser)
    args = parser.parse_args(argv)
    source = StudyDataset(args.source, settings_of(args.changes))
    target = Splits.load(Path("artifacts") / args.target / "splits")
    values: dict[str, list[np.ndarray]] = {}
    for seed in args.seeds:
        rankers = rankers_of(source, target, seed) | {
            "popularity in the target": Popularity(target)
        }
        for name, ranker in rankers.items():
            ranks = evaluate(ranker, target, "test", full=False)
            values.setdefault(name, []).append(per_user(ranks.sampled))
    pair = f"{args.source}->{args.target}"
    users = target.evaluated("test").users
    rows = tidy(pair, {name: np.stack(seeds) for name, seeds in values.items()}, users, source)
    both, _ = shared_items(source.splits.catalog, target.catalog)
    cells = {name: [name] for name in values}
    for row in rows:
        cells[row["system"]].append(with_interval(row["value"], row["low"], row["high"]))
    title = f"{pair}, {len(both):,} items in both, chance HR@10 0.10"
    print_table(title, ["", *map(str.upper, SHOWN)], cells.values())
    save(pd.DataFrame(rows), "cross_domain", f"{args.source}-{args.target}")
