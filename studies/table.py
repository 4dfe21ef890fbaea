"""The tidy table of a study: a row for each mean and each paired difference."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import pandas as pd

from studies.config import Order

CHANCE = "chance"  # a system of its own: the mean of a random order


class Cell(NamedTuple):
    """What is measured: a variant, the order of its training and its test histories, and how it is measured."""

    system: str
    train: Order
    test: Order
    protocol: str  # sampled | full | generation (title candidates) | empty for a similarity
    metric: str

    @property
    def label(self) -> str:
        """How other rows refer to it."""
        words = ["trained on shuffled"] * (self.train == "shuffled")
        return ", ".join([self.system, *words, *["shuffled"] * (self.test == "shuffled")])


@dataclass(frozen=True, kw_only=True)
class Row:
    """A mean over seeds and users; or, where `minus` names another cell, how far the cell is above that one."""

    dataset: str
    system: str
    train: str
    test: str
    group: str
    protocol: str
    metric: str
    minus: str = ""
    family: str = ""  # of tests: reference | reference_shuffled | pairs | shuffled_training | shuffled_inference
    value: float
    low: float
    high: float
    lowest_seed: float
    highest_seed: float
    seeds: int
    users: int
    change: float | None = None  # percent of the other cell; None where that is 0
    change_low: float | None = None
    change_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    different: bool | None = None  # p_holm is below alpha
    paper: float | None = None
    versus_paper: str = (
        ""  # inside | outside our interval | not comparable | empty: the paper has no such number
    )


@dataclass(frozen=True)
class StudyResult:
    """The table of a study on a dataset; `trained` describes each training, `about` the study."""

    rows: list[Row]
    trained: list[dict[str, Any]]
    about: dict[str, Any]

    @property
    def table(self) -> pd.DataFrame:
        return pd.DataFrame([asdict(row) for row in self.rows])

    def values(self, **wanted: str) -> dict[str, Row]:
        """The means of a cell by system, best first, over all users unless `group` is given."""
        wanted = {"group": "all", "minus": "", **wanted}
        rows = [row for row in self.rows if _is(row, wanted)]
        return {row.system: row for row in sorted(rows, key=lambda row: -row.value)}

    def tests(self, family: str, protocol: str, group: str = "all") -> dict[str, Row]:
        """The differences of a family by system."""
        wanted = {"family": family, "protocol": protocol, "group": group}
        return {row.system: row for row in self.rows if row.minus and _is(row, wanted)}


def _is(row: Row, wanted: Mapping[str, str]) -> bool:
    return all(getattr(row, name) == value for name, value in wanted.items())
