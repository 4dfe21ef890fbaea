"""The systems that the evaluation ranks, in the order of its table; a new one is a new entry of SYSTEMS."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import MarkovChain, Popularity
from llmsrec.ranking.ranker import Ranker

SHUFFLED = "_shuffled"  # ends the name of a system that was shown shuffled histories


@dataclass(frozen=True)
class Inputs:
    """What a system is made from; `models` are the trained rankers by name."""

    splits: Splits
    models: Mapping[str, Ranker]
    seed: int


@dataclass(frozen=True)
class System:
    """A row of the table. The gates compare the student with the best system whose kind is `baseline`."""

    label: str
    kind: Literal["baseline", "model"]
    build: Callable[[Inputs], Ranker] | None = None  # None: a trained ranker of the same name


SYSTEMS = {
    "popularity": System("Popularity", "baseline", lambda inputs: Popularity(inputs.splits)),
    "markov": System("Markov chain", "baseline", lambda inputs: MarkovChain(inputs.splits)),
    "markov_unordered": System(
        "Markov chain, shuffled training", "baseline",
        lambda inputs: MarkovChain(
            inputs.splits, inputs.splits.train.shuffled(np.random.default_rng(inputs.seed))
        ),
    ),
    "content": System("Item texts (TF-IDF)", "baseline"),
    "teacher": System("Teacher (SASRec)", "model"),
    "student": System("Student (LLM-SRec)", "model"),
    "recommender_without_student": System("Recommender without the student", "model"),
    "recommender": System("Recommender", "model"),
}  # fmt: skip


def all_rankers(inputs: Inputs) -> dict[str, Ranker]:
    """Every system by name; trained ones that `inputs` lacks are left out."""
    built = {name: system.build(inputs) for name, system in SYSTEMS.items() if system.build}
    rankers = {**built, **inputs.models}
    return {name: rankers[name] for name in SYSTEMS if name in rankers}


def label(name: str) -> str:
    """The name of a system in tables and sentences; that of one which is not in SYSTEMS is its own."""
    base = name.removesuffix(SHUFFLED)
    text = SYSTEMS[base].label if base in SYSTEMS else base
    return text if name == base else f"{text}, shuffled"


def baselines() -> list[str]:
    """The names of the systems that are cheap rivals of the student."""
    return [name for name, system in SYSTEMS.items() if system.kind == "baseline"]
