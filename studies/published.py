"""The paper's numbers (Kim et al., KDD 2025: its tables, and its figures as read off) and how ours compare."""

from pathlib import Path

import pandas as pd

PAPER_NAMES = {"Industrial_and_Scientific": "Scientific", "Movies_and_TV": "Movies",
               "Electronics": "Electronics", "CDs_and_Vinyl": "CDs"}  # fmt: skip
PAPER = Path(__file__).parent / "paper_results.csv"


def paper_table() -> pd.DataFrame:
    return pd.read_csv(PAPER)


def paper_name(dataset: str) -> str | None:
    """The paper's name of a dataset or of a pair `source->target`; None for a dataset that it does not have."""
    names = [PAPER_NAMES.get(part) for part in dataset.split("->")]
    return None if None in names else "->".join(map(str, names))


def published_in(
    paper: pd.DataFrame, dataset: str, table: str, model: str, metric: str, tokens: set[str]
) -> float | None:
    """The number of a dataset whose variant has all of `tokens`; None where the paper has none."""
    rows = paper[
        (paper["table"] == table)
        & (paper["dataset"] == paper_name(dataset))
        & (paper["model"] == model)
        & (paper["metric"].str.lower() == metric)
    ]
    rows = rows[[tokens <= set(variant.split(";")) for variant in rows["variant"]]]
    return float(rows["value"].iloc[0]) if len(rows) else None


def versus_paper(dataset: str, paper: float | None, low: float, high: float) -> str:
    """`inside` or `outside` of our interval; `not comparable` for a dataset that is not the paper's."""
    if paper_name(dataset) is None:
        return "not comparable"
    if paper is None:
        return ""
    return "inside" if low <= paper <= high else "outside"


LLM_SREC = "LLM-SRec"
RETRIEVAL = {
    "gru4rec": "GRU4Rec", "bert4rec": "BERT4Rec", "nextitnet": "NextItNet", "sasrec": "SASRec", "ctrl": "CTRL",
    "recformer": "RECFORMER", "tallrec": "TALLRec", "llara": "LLaRA", "collm": "CoLLM", "allmrec": "A-LLMRec",
    "llmsrec": LLM_SREC, "llmsrec_last_item": LLM_SREC,
}  # fmt: skip
GENERATION = {
    "sasrec": "SASRec",
    **{f"{name}_generation": RETRIEVAL[name] for name in ("tallrec", "llara", "collm", "allmrec")},
}
Place = tuple[str, set[str]]  # a table or figure, and the tokens of the variant there


def published_of(
    paper: pd.DataFrame, dataset: str, group: str, system: str, **cell: str
) -> float | None:
    """The paper's number of a variant by `train`, `test`, `protocol` and `metric` (specification E1 to E15)."""
    names = GENERATION if cell["protocol"] == "generation" else RETRIEVAL
    place = _place_of_variant(system, **cell) if group == "all" else None
    if system in names:
        place = _place(**cell) if group == "all" else _place_of_group(group, **cell)
    if place is None or cell["protocol"] == "full":
        return None
    metric = "cosine_similarity" if cell["metric"] == "cosine" else cell["metric"]
    return published_in(paper, dataset, place[0], names.get(system, LLM_SREC), metric, place[1])


def _place(*, train: str, test: str, protocol: str, metric: str) -> Place | None:
    """Tables 3 to 6 and figure 1."""
    if {train, test} == {"shuffled"}:
        return None
    if metric == "cosine":
        return ("Table5", {"train=original"}) if train == "original" else None
    generated = protocol == "generation"
    if test == "shuffled":
        return ("Fig1a" if generated else "Fig1b"), {"inference=shuffled"}
    if train == "shuffled" or generated:
        return ("Table4" if generated else "Table3"), {f"train={train}"}
    return "Table6", {"test=original"}


def _place_of_group(
    group: str, *, train: str, test: str, protocol: str, metric: str
) -> Place | None:
    """Figures 3 and 4."""
    if protocol != "sampled" or {train, test} != {"original"}:
        return None
    return ("Fig4" if group in ("warm", "cold") else "Fig3"), {f"subset={group}"}


def _place_of_variant(
    system: str, *, train: str, test: str, protocol: str, metric: str
) -> Place | None:
    """Tables 8, 11 and 12 and figure 7."""
    if protocol != "sampled" or {train, test} == {"shuffled"}:
        return None
    kind = "auto-regressive-shuffle" if test == "shuffled" else "auto-regressive"
    places = {
        "llmsrec_no_uniformity": ("Table8", {"ablation=w/o uniform", f"train={train}"}),
        "llmsrec_no_distillation": ("Table8", {"ablation=w/o distill,uniform", f"train={train}"}),
        "llmsrec_user_vector": ("Table11", {"prompt=with_user_representation"}),
        "llmsrec_contrastive": ("Table12", {"distill=contrastive", f"inference={test}"}),
        "llmsrec_auto_regressive": ("Fig7", {f"training={kind}"}),
    }
    shows_shuffled = system in ("llmsrec_contrastive", "llmsrec_auto_regressive")
    trains_shuffled = system in ("llmsrec_no_uniformity", "llmsrec_no_distillation")
    if (test == "shuffled" and not shows_shuffled) or (train == "shuffled" and not trains_shuffled):
        return None
    return places.get(system)
