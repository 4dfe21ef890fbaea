"""What the stores are like: sizes, lengths, ties (SPEC E16), beside the paper's table 10 where it has the store.

    python -m experiments statistics --datasets Toys_and_Games Video_Games

reads artifacts/<dataset>/splits; the table is written to reports/experiments/statistics/<datasets>.csv.
"""

import math
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from experiments.commands import parser_of, save
from llmsrec.comparison.published import PAPER_NAMES, paper_table, published_in
from llmsrec.data.splits import Splits
from llmsrec.preprocessing.splitting import split_statistics

IN_PAPER = {"users": "n_users", "items": "n_items", "interactions": "n_interactions"}


def tidy(datasets: list[str]) -> pd.DataFrame:
    """A row for each number of each store; `paper` is empty where the paper does not have that store."""
    published, rows = paper_table(), []
    for dataset in datasets:
        found = split_statistics(Splits.load(Path("artifacts") / dataset / "splits"))
        for metric, value in found.items():
            name = IN_PAPER.get(metric, "")
            paper = published_in(published, dataset, "Table10", "-", name, set())
            beside = "" if dataset in PAPER_NAMES else "not comparable"
            rows.append({"dataset": dataset, "metric": metric, "value": value, "paper": paper,
                         "beside": beside})  # fmt: skip
    return pd.DataFrame(rows)


def show(rows: pd.DataFrame) -> None:
    table = Table(box=SIMPLE)
    table.add_column("")
    datasets = list(dict.fromkeys(rows["dataset"]))
    for dataset in datasets:
        table.add_column(dataset, justify="right")
    for metric, group in rows.groupby("metric", sort=False):
        cells = [
            f"{value:,.10g}" + ("" if math.isnan(paper) else f" (paper {paper:,.0f})")
            for value, paper in zip(
                group["value"].tolist(), group["paper"].astype(float).tolist(), strict=True
            )
        ]
        table.add_row(str(metric).replace("_", " "), *cells)
    Console(markup=False, highlight=False).print(table)


def main(argv: list[str]) -> None:
    parser = parser_of("statistics", __doc__)
    parser.add_argument("--datasets", nargs="+", required=True)
    datasets = parser.parse_args(argv).datasets
    rows = tidy(datasets)
    show(rows)
    save(rows, "statistics", "-".join(datasets))
