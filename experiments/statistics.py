"""What the stores are like: sizes, lengths, ties (SPEC E16), beside the paper's table 10 where it has the store.

    python -m experiments.statistics --datasets Toys_and_Games Video_Games --paper paper_results.csv

reads artifacts/<dataset>/splits; the table is written to scratch/statistics.csv. The paper's columns: table, dataset,
model, variant, metric, value.
"""

import argparse
import math
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from llmsrec.data.splits import Splits
from llmsrec.data.splitting import statistics
from llmsrec.evaluation.results import PAPER_NAMES
from llmsrec.files import whole_file

FOUND = Path("scratch/statistics.csv")
IN_PAPER = {"users": "n_users", "items": "n_items", "interactions": "n_interactions"}


def tidy(datasets: list[str], paper: Path | None) -> pd.DataFrame:
    """A row for each number of each store; `paper` is empty where the paper does not have that store."""
    published: dict[tuple[str, str], float] = {}
    if paper is not None:
        table = pd.read_csv(paper)
        table = table[table["table"] == "Table10"]
        keys = zip(table["dataset"], table["metric"], strict=True)
        published = dict(zip(keys, table["value"].astype(float), strict=True))
    rows = []
    for dataset in datasets:
        found = statistics(Splits.load(Path("artifacts") / dataset / "splits"))
        for metric, value in found.items():
            key = (PAPER_NAMES.get(dataset, ""), IN_PAPER.get(metric, ""))
            rows.append(
                {"dataset": dataset, "metric": metric, "value": value, "paper": published.get(key)}
            )
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", required=True)
    parser.add_argument("--paper", type=Path, help="a CSV of the paper's numbers")
    args = parser.parse_args()
    rows = tidy(args.datasets, args.paper)
    with whole_file(FOUND) as aside:
        rows.to_csv(aside, index=False)
    show(rows)


if __name__ == "__main__":
    main()
