"""The paper's numbers (Kim et al., KDD 2025: tables, and figures as read off), and where one stands beside ours."""

import re
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


SYSTEMS = ("GRU4Rec", "BERT4Rec", "NextItNet", "SASRec", "CTRL", "RECFORMER", "TALLRec", "LLaRA", "CoLLM",
           "A-LLMRec", "LLM-SRec")  # fmt: skip


def named_in_paper(system: str) -> str | None:
    """`a_llmrec` is its A-LLMRec; None for a system that it has not."""
    plain = {re.sub(r"\W|_", "", name).lower(): name for name in SYSTEMS}
    return plain.get(re.sub(r"\W|_", "", system).lower())


def published_of(
    paper: pd.DataFrame, dataset: str, system: str, mode: str, **cell: str
) -> float | None:
    """Of a system by how it was trained and asked (`train`, `test`, `protocol`, `metric`): SPEC E1 to E5."""
    model, place = named_in_paper(system), _place(mode, **cell)
    if model is None or place is None:
        return None
    if cell["protocol"] == "generation" and mode == "retrieval" and model != "SASRec":
        return None  # its language models wrote their answers
    metric = "cosine_similarity" if cell["metric"] == "cosine" else cell["metric"]
    return published_in(paper, dataset, place[0], model, metric, place[1])


def _place(
    mode: str, *, train: str, test: str, protocol: str, metric: str
) -> tuple[str, set[str]] | None:
    """The table, and what its variant says there."""
    if protocol == "full" or {train, test} == {"shuffled"}:
        return None
    if metric == "cosine":
        return ("Table5", {"train=original"}) if train == "original" else None
    written = protocol == "generation"
    if test == "shuffled":
        return ("Fig1a" if written else "Fig1b"), {"inference=shuffled"}
    if train == "shuffled" or written:
        return ("Table4" if written else "Table3"), {f"train={train}"}
    return "Table6", {"test=original"}
