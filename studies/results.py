"""Results of runs -> one tidy table: a row for each number and each paired difference, with its 95% interval.

Intervals resample users, each with all its targets; seeds are averaged before. A difference is tested by a paired
bootstrap over the same users; p values are corrected by Holm for all tests of a family, group and protocol
(specification 9). p is no smaller than 2 / (resamples + 1)."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from llmsrec.evaluation.bootstrap import holm, interval, resampled_means, two_sided_p
from llmsrec.evaluation.per_user import METRICS, PROTOCOLS
from llmsrec.report.groups import all_groups
from studies.config import Protocol, Run, StudyConfig
from studies.evaluation import Chance, EvaluationTask, RunResult, evaluate_ranker
from studies.published import paper_table, published_of, versus_paper
from studies.table import CHANCE, Cell, Row, StudyResult

TESTED = (("sampled", "ndcg@10"), ("full", "ndcg@10"), ("generation", "hr@1"))
GROUP_METRICS = ("ndcg@10", "hr@10", "ndcg@20", "hr@20")


Columns = dict[Cell, Float[np.ndarray, "seeds users"]]
Pair = tuple[Cell, Cell]
Users = Int[np.ndarray, "targets"]  # the user of each value of a column


class Group(NamedTuple):
    """The evaluated targets of a group, by user."""

    name: str
    users: Users


def study_result(
    about: Mapping[str, str],
    results: Mapping[Run, RunResult],
    task: EvaluationTask,
    study: StudyConfig,
    protocol: Protocol,
) -> StudyResult:
    """The table of a study; `about` names the study and the dataset. Rows of chance come last."""
    chance = RunResult(evaluate_ranker(Chance(task.splits.num_items), task, shuffled=False), {})
    builder = TableBuilder(about["dataset"], task, study.reference, protocol)
    rows = list(builder.rows({**results, Run(CHANCE, "original", 0): chance}))
    trained = [
        asdict(run) | {name: result.facts[name] for name in ("parameters", "stages", "weights")}
        for run, result in results.items()
    ]
    facts = {
        "reference": study.reference,
        "summary": study.summary,
        "alpha": protocol.alpha,
        "bootstrap": protocol.bootstrap,
        "users": len(np.unique(task.users)),
        "generation_users": len(np.unique(task.title_users)),
        "items": task.splits.num_items,
        "candidates": task.splits.candidates[task.part].items.shape[1],
        "generation_candidates": task.splits.generation_candidates[task.part].items.shape[1],
        "seeds": list(dict.fromkeys(run.seed for run in results)),
    }
    return StudyResult(rows, trained, {**about, **facts})


def columns_of(results: Mapping[Run, RunResult]) -> tuple[Columns, Columns]:
    """User by user, the seeds stacked: of all test users, and of the users of title generation."""
    stacked: dict[Cell, list[np.ndarray]] = {}
    for run, result in results.items():
        for name, values in result.values.items():
            for cell, column in _cells(run, name, values):
                stacked.setdefault(cell, []).append(column)
    columns = {cell: np.stack(seeds) for cell, seeds in stacked.items()}
    titles = {cell: values for cell, values in columns.items() if cell.protocol == "generation"}
    return {cell: columns[cell] for cell in columns if cell not in titles}, titles


def _cells(
    run: Run, name: str, values: Float[np.ndarray, "..."]
) -> Iterator[tuple[Cell, Float[np.ndarray, "users"]]]:
    if name == "similarity":
        yield Cell(run.system, run.order, "shuffled", "", "cosine"), values
        return
    test, _, kind = name.partition("_")
    if kind in PROTOCOLS:
        for place, metric in enumerate(METRICS):
            yield Cell(run.system, run.order, test, kind, metric), values[:, place]  # type: ignore[arg-type]
        return
    metric = "valid" if kind == "valid" else "hr@1"
    yield Cell(run.system, run.order, test, "generation", metric), values  # type: ignore[arg-type]


class TableBuilder:
    """Rows from per-user columns; all columns of a group share their resamples of the users."""

    def __init__(
        self, dataset: str, task: EvaluationTask, reference: str, protocol: Protocol
    ) -> None:
        self.dataset, self.task, self.protocol = dataset, task, protocol
        self.reference, self.paper = reference, paper_table()

    def rows(self, results: Mapping[Run, RunResult]) -> Iterator[Row]:
        """Means and differences over all users, then those of the groups of users."""
        everyone, titles = columns_of(results)
        users = self.task.users
        for columns, owners in ((everyone, users), (titles, self.task.title_users)):
            if columns:
                yield from self.group_rows(Group("all", owners), columns)
        grouped = {cell: v for cell, v in everyone.items() if cell.metric in GROUP_METRICS}
        families = all_groups(self.task.splits, self.task.part)
        for name, mask in {**families["target"], **families["transitions"]}.items():
            if mask.any() and grouped:
                yield from self.group_rows(Group(name, users[mask]), masked(grouped, mask))

    def group_rows(self, group: Group, columns: Columns) -> Iterator[Row]:
        means = {cell: values.mean(axis=0) for cell, values in columns.items()}
        resampled = self._resample(np.stack(list(means.values()), axis=1), group.users)
        drawn = dict(zip(columns, resampled.T, strict=True))
        for cell, values in columns.items():
            row = self._row(group, cell, values, drawn[cell])
            paper = published_of(self.paper, self.dataset, group.name, **cell._asdict())
            versus = versus_paper(self.dataset, paper, row["low"], row["high"])
            yield Row(**row, paper=paper, versus_paper=versus)
        for protocol, metric in TESTED:
            cells = [c for c in columns if (c.protocol, c.metric) == (protocol, metric)]
            cells = [cell for cell in cells if cell.system != CHANCE]
            for family, pairs in self.families(cells).items():
                if pairs:
                    yield from self._tests(group, family, pairs, columns, drawn)

    def families(self, cells: list[Cell]) -> dict[str, list[Pair]]:
        """The pairs of each family of tests: the first cell of a pair minus the second."""
        original = [cell for cell in cells if cell.test == "original"]
        plain = [cell for cell in original if cell.train == "original"]
        shuffled = [cell for cell in original if cell.train == "shuffled"]
        known = set(cells)
        trained = [(cell._replace(train="shuffled"), cell) for cell in plain]
        shown = [(cell._replace(test="shuffled"), cell) for cell in plain]
        return {
            "reference": self._against_reference(plain),
            "reference_shuffled": self._against_reference(shuffled),
            "pairs": list(combinations(plain, 2)) if self.protocol.pairs == "all" else [],
            "shuffled_training": [pair for pair in trained if pair[0] in known],
            "shuffled_inference": [pair for pair in shown if pair[0] in known],
        }

    def _against_reference(self, cells: list[Cell]) -> list[Pair]:
        references = [cell for cell in cells if cell.system == self.reference]
        return [(cell, references[0]) for cell in cells if references and cell != references[0]]

    def _tests(
        self, group: Group, family: str, pairs: list[Pair], columns: Columns, drawn: Columns
    ) -> Iterator[Row]:
        # a difference is resampled as a column of its own: that of equal systems is exactly 0
        gaps = [columns[first] - columns[second] for first, second in pairs]
        each = np.stack([gap.mean(axis=0) for gap in gaps], axis=1)
        resampled = self._resample(each, group.users)
        p = np.array([two_sided_p(column) for column in resampled.T])
        rows = zip(pairs, gaps, resampled.T, p, holm(p), strict=True)
        for (first, second), gap, column, plain, corrected in rows:
            change = change_in_percent(
                float(gap.mean()), column, float(columns[second].mean()), drawn[second]
            )
            yield Row(
                **self._row(group, first, gap, column), minus=second.label, family=family, change=change[0],
                change_low=change[1], change_high=change[2], p=float(plain), p_holm=float(corrected),
                different=bool(corrected < self.protocol.alpha),
            )  # fmt: skip

    def _row(
        self, group: Group, cell: Cell, values: Float[np.ndarray, "seeds users"], drawn: np.ndarray
    ) -> dict[str, Any]:
        place = {"dataset": self.dataset, "group": group.name, **cell._asdict()}
        return place | numbers(values, drawn, group.users)

    def _resample(
        self, columns: Float[np.ndarray, "targets columns"], users: Users
    ) -> Float[np.ndarray, "resamples columns"]:
        seed = self.task.evaluation.seed
        return resampled_means(columns, self.protocol.bootstrap, seed, users)


def numbers(
    values: Float[np.ndarray, "seeds targets"],
    drawn: Float[np.ndarray, "resamples"],
    users: Users,
) -> dict[str, Any]:
    """The mean over seeds and targets with its interval from resampled means, and the range over seeds."""
    seeds = values.mean(axis=1)
    return {
        **interval(float(values.mean(axis=0).mean()), drawn).as_dict(),
        "lowest_seed": float(seeds.min()),
        "highest_seed": float(seeds.max()),
        "seeds": len(values),
        "users": len(np.unique(users)),
    }


def masked(columns: Columns, mask: Bool[np.ndarray, "users"]) -> Columns:
    """The columns of some users."""
    return {cell: values[:, mask] for cell, values in columns.items()}


def change_in_percent(
    gap: float, gaps: Float[np.ndarray, "n"], base: float, bases: Float[np.ndarray, "n"]
) -> tuple[float | None, float | None, float | None]:
    """A difference as a share of its base, with the interval of the ratio; None where a base is 0."""
    if base <= 0 or (bases <= 0).any():
        return None, None, None
    ratio = interval(gap / base, gaps / bases)
    return 100 * ratio.value, 100 * ratio.low, 100 * ratio.high
