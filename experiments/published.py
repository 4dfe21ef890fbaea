"""The paper's numbers (Kim et al., KDD 2025: tables, and figures as read off), and where one stands beside ours."""

from pathlib import Path

import pandas as pd

PAPER_NAMES = {"Industrial_and_Scientific": "Scientific", "Movies_and_TV": "Movies",
               "Electronics": "Electronics", "CDs_and_Vinyl": "CDs"}  # fmt: skip
PAPER = Path(__file__).parent / "paper_results.csv"


def paper_table() -> pd.DataFrame:
    return pd.read_csv(PAPER)


def paper_name(dataset: str) -> str | None:
    """Of a store, or of a pair `source->target`; None where the paper has not all of it."""
    names = [PAPER_NAMES.get(part) for part in dataset.split("->")]
    return None if None in names else "->".join(map(str, names))


def published_in(
    paper: pd.DataFrame, dataset: str, table: str, model: str, metric: str, tokens: set[str]
) -> float | None:
    """The number of that store whose variant holds all of `tokens`; None where the paper has none."""
    rows = paper[
        (paper["table"] == table)
        & (paper["dataset"] == paper_name(dataset))
        & (paper["model"] == model)
        & (paper["metric"].str.lower() == metric)
    ]
    found = rows[[tokens <= set(variant.split(";")) for variant in rows["variant"]]]
    return float(found["value"].iloc[0]) if len(found) else None


def verdict(dataset: str, published: float | None, low: float, high: float) -> str:
    """`inside` or `outside` of our interval; `not comparable` for a store that is not the paper's."""
    if paper_name(dataset) is None:
        return "not comparable"
    if published is None:
        return ""
    return "inside" if low <= published <= high else "outside"
