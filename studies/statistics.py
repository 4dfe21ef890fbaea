"""The sizes, lengths and ties of datasets (specification E16), beside the paper's table 10 where it has the dataset.

    python -m studies statistics --datasets Toys_and_Games Video_Games

reads artifacts/<dataset>/splits and writes reports/studies/statistics/<datasets>.csv.
"""

import math
from pathlib import Path

import pandas as pd

from llmsrec.core.names import name_option
from llmsrec.data.splits import Splits
from llmsrec.preprocessing.splitting import split_statistics
from studies.commands import parser_of, print_table, save
from studies.published import PAPER_NAMES, paper_table, published_in

PAPER_METRICS = {"users": "n_users", "items": "n_items", "interactions": "n_interactions"}


def tidy(datasets: list[str]) -> pd.DataFrame:
    """A row for each number of each dataset; `paper` is empty where the paper does not have it."""
    published, rows = paper_table(), []
    for dataset in datasets:
        splits = Splits.load(Path("artifacts") / dataset / "splits")
        for metric, value in split_statistics(splits).items():
            name = PAPER_METRICS.get(metric, "")
            paper = published_in(published, dataset, "Table10", "-", name, set())
            versus = "" if dataset in PAPER_NAMES else "not comparable"
            rows.append({"dataset": dataset, "metric": metric, "value": value, "paper": paper,
                         "versus_paper": versus})  # fmt: skip
    return pd.DataFrame(rows)


def main(argv: list[str]) -> None:
    """The command `python -m studies statistics`."""
    parser = parser_of("statistics", __doc__)
    parser.add_argument("--datasets", nargs="+", type=name_option, required=True)
    datasets = parser.parse_args(argv).datasets
    rows = tidy(datasets)
    cells = {metric: [str(metric).replace("_", " ")] for metric in dict.fromkeys(rows["metric"])}
    columns = (rows["metric"], rows["value"], rows["paper"].astype(float))
    for metric, value, published in zip(*(column.tolist() for column in columns), strict=True):
        paper = "" if math.isnan(published) else f" (paper {published:,.0f})"
        cells[metric].append(f"{value:,.10g}{paper}")
    print_table(None, ["", *datasets], cells.values())
    save(rows, "statistics", "-".join(datasets))
