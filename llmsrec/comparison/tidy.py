"""Outcomes -> a tidy table: a row for each number, with its 95% interval over users, of the mean over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from llmsrec.comparison.config import Arm, Order
from llmsrec.comparison.outcomes import Outcome
from llmsrec.comparison.published import verdict
from llmsrec.core.errors import ArtifactError
from llmsrec.evaluation.bootstrap import interval, resampled_means
from llmsrec.evaluation.per_user import METRICS, PROTOCOLS
from llmsrec.llm.variants import Mode

CHANCE = "chance"  # a row of its own: what a random order gives


class Cell(NamedTuple):
    """What is measured: a system, how it was trained and asked, and how it is told."""

    system: str
    mode: Mode
    train: Order
    test: Order
    protocol: str  # sampled | full | generation (mode G's candidates) | nothing, of a similarity
    metric: str


Columns = dict[Cell, Float[np.ndarray, "seeds users"]]


@dataclass(frozen=True, kw_only=True)
class Number:
    """A mean over seeds and users with its 95% interval, and the paper's beside it."""

    value: float
    low: float
    high: float
    lowest_seed: float
    highest_seed: float
    seeds: int
    users: int
    paper: float | None
    beside: str  # inside | outside of our interval | not comparable | nothing, where the paper has no such number

    @classmethod
    def estimate(
        cls,
        dataset: str,
        values: Float[np.ndarray, "seeds users"],
        drawn: Float[np.ndarray, "n"],
        paper: float | None,
    ) -> dict[str, Any]:
        """Of all values and the means of those that were drawn again; for who makes a row of it."""
        seeds = values.mean(axis=1)
        found = interval(float(values.mean(axis=0).mean()), drawn)
        return found.as_dict() | {
            "lowest_seed": float(seeds.min()),
            "highest_seed": float(seeds.max()),
            "seeds": len(values),
            "users": values.shape[1],
            "paper": paper,
            "beside": verdict(dataset, paper, found.low, found.high),
        }


def frame(kind: type[Any], rows: Sequence[Any]) -> pd.DataFrame:
    """What a number is of stands before it."""
    numbers = [field.name for field in fields(Number)] if issubclass(kind, Number) else []
    of = [field.name for field in fields(kind) if field.name not in numbers]
    return pd.DataFrame([asdict(row) for row in rows], columns=of + numbers)


@dataclass(frozen=True, kw_only=True)
class Row(Number):
    dataset: str
    system: str
    mode: str
    train: str
    test: str
    protocol: str
    metric: str


def load_outcomes(folder: Path, arms: list[Arm], asked: str) -> dict[Arm, Outcome]:
    """Of `folder`/<system>/<training>; all must have been asked this (`Asked.digest`), or users would be mixed."""
    outcomes = {arm: Outcome.load(folder / arm.system / arm.name / "outcome") for arm in arms}
    for arm, outcome in outcomes.items():
        if outcome.facts["asked"] != asked:
            raise ArtifactError(
                f"{folder}: {arm.system} {arm.name} was evaluated by other settings or on other users than those of "
                "today: run `llmsrec compare`, or the stage `system`, once more"
            )
    return outcomes


def columns_of(outcomes: Mapping[Arm, Outcome]) -> list[Columns]:
    """User by user, the seeds over one another: of the test users, and of those of mode G, who may be fewer."""
    stacked: dict[Cell, list[np.ndarray]] = {}
    for arm, outcome in outcomes.items():
        for name, values in outcome.values.items():
            for cell, column in _cells(arm, name, values):
                stacked.setdefault(cell, []).append(column)
    everyone: Columns = {}
    writers: Columns = {}
    for cell, seeds in stacked.items():
        (writers if cell.protocol == "generation" else everyone)[cell] = np.stack(seeds)
    return [columns for columns in (everyone, writers) if columns]


def _cells(
    arm: Arm, name: str, values: Float[np.ndarray, "..."]
) -> list[tuple[Cell, Float[np.ndarray, "users"]]]:
    if name == "similarity":
        return [(Cell(arm.system, arm.mode, arm.order, "shuffled", "", "cosine"), values)]
    test, _, kind = name.partition("_")
    order: Any = test
    cell = Cell(
        arm.system, arm.mode, arm.order, order, "generation", "valid" if kind == "valid" else "hr@1"
    )
    if kind in PROTOCOLS:
        return [
            (cell._replace(protocol=kind, metric=metric), values[:, place])
            for place, metric in enumerate(METRICS)
        ]
    return [(cell, values)]


class Resampled:
    """Users drawn again and again, the same for all columns; means over seeds."""

    def __init__(self, columns: Columns, resamples: int, seed: int) -> None:
        self.columns, self.resamples, self.seed = columns, resamples, seed
        self.means = {cell: values.mean(axis=0) for cell, values in columns.items()}
        self.places = {cell: place for place, cell in enumerate(columns)}
        self.drawn = self.draw(np.stack(list(self.means.values()), axis=1))

    def draw(self, columns: Float[np.ndarray, "users columns"]) -> Float[np.ndarray, "n columns"]:
        return resampled_means(columns, self.resamples, self.seed)

    def of(self, cell: Cell) -> Float[np.ndarray, "n"]:
        return self.drawn[:, self.places[cell]]


def rows_of(dataset: str, drawn: Resampled, paper: Mapping[Cell, float | None]) -> list[Row]:
    return [
        Row(
            dataset=dataset,
            **cell._asdict(),
            **Number.estimate(dataset, values, drawn.of(cell), paper.get(cell)),
        )
        for cell, values in drawn.columns.items()
    ]
