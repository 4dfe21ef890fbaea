"""What a study found as a tidy table: a row for each number, with its interval, beside the paper's where it has it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from experiments.study import FULL, TEACHER, Arm, Order, Study, Values
from llmsrec.comparison.tidy import Number
from llmsrec.evaluation.bootstrap import resampled_means
from llmsrec.evaluation.per_user import METRICS, PROTOCOLS
from llmsrec.report.groups import all_groups

KEPT = ("ndcg@10", "hr@10", "ndcg@20", "hr@20")

Numbers = Float[np.ndarray, "seeds users"]
Columns = dict[tuple["Cell", "Cell | None"], Numbers]  # of a cell, or of one less another


@dataclass(frozen=True)
class Cell:
    """A trained model, shown true or shuffled histories when it is tested."""

    arm: Arm
    test: Order = "original"

    @property
    def label(self) -> str:
        arm = self.arm
        words = [TEACHER if arm.variant == TEACHER else "student"]
        words += [arm.variant] * (arm.variant not in (TEACHER, FULL))
        words += [arm.backbone] * (arm.backbone != "backbone")
        words += ["trained on shuffled"] * (arm.train == "shuffled")
        return ", ".join([*words, *["shuffled"] * (self.test == "shuffled")])


@dataclass(frozen=True, kw_only=True)
class Row(Number):
    """A mean over seeds and users, or how far it is from that of `minus`."""

    dataset: str
    label: str  # what `minus` of other rows calls it
    model: str
    variant: str
    train: str
    test: str
    backbone: str
    settings: str
    group: str
    protocol: str
    metric: str
    minus: str


Published = Callable[[Cell, str, str], float | None]  # of a cell, in a group, by a metric


def tidy(study: Study, seeds: list[dict[Arm, Values]], published: Published) -> list[Row]:
    everyone = {"all": np.ones(len(study.splits.candidates[study.part]), dtype=bool)}
    families = all_groups(study.splits, study.part)
    groups = {**everyone, **families["target"], **families["transitions"]}
    rows: list[Row] = []
    for group, chosen in groups.items():
        if not chosen.any():
            continue
        for protocol in PROTOCOLS:
            for metric in KEPT:
                columns = _columns(seeds, protocol, metric, chosen)
                rows += _rows(study, columns, (group, protocol, metric), published)
    alike: Columns = {
        (Cell(arm, "shuffled"), None): np.stack([found[arm]["similarity"] for found in seeds])
        for arm in seeds[0]
    }
    return rows + list(_rows(study, alike, ("all", "", "cosine"), published))


def _columns(
    seeds: list[dict[Arm, Values]], protocol: str, metric: str, chosen: Bool[np.ndarray, "users"]
) -> Columns:
    """Each model with true and shuffled histories; what shuffling costs it; it less its teacher and its reference."""
    at = METRICS.index(metric)

    def numbers(cell: Cell) -> Numbers:
        key = f"{cell.test}_{protocol}"
        return np.stack([found[cell.arm][key][chosen, at] for found in seeds])

    columns: Columns = {}
    plain = next(arm.variant for arm in seeds[0] if arm.variant != TEACHER)
    for arm in seeds[0]:
        true, shuffled = Cell(arm), Cell(arm, "shuffled")
        columns[true, None], columns[shuffled, None] = numbers(true), numbers(shuffled)
        others = [(shuffled, true)]
        if arm.variant != TEACHER:
            others.append((true, Cell(Arm(TEACHER, arm.train))))
        reference = arm.reference(TEACHER if arm.variant == TEACHER else plain)
        if reference in seeds[0] and reference != arm:
            others.append((true, Cell(reference)))
        for first, second in others:
            columns[first, second] = numbers(first) - numbers(second)
    return columns


def _rows(
    study: Study, columns: Columns, where: tuple[str, str, str], published: Published
) -> Iterator[Row]:
    group, protocol, metric = where
    means = np.stack([values.mean(axis=0) for values in columns.values()], axis=1)
    resampled = resampled_means(means, study.evaluation.bootstrap, study.evaluation.seed)
    settings = " ".join(f"{key}={value}" for key, value in study.changes.items())
    for number, ((cell, minus), values) in enumerate(columns.items()):
        paper = published(cell, group, metric) if minus is None and protocol != "full" else None
        arm, teacher = cell.arm, cell.arm.variant == TEACHER
        yield Row(
            dataset=study.dataset, label=cell.label, model=TEACHER if teacher else "student",
            variant="" if teacher else arm.variant, train=arm.train, test=cell.test,
            backbone=arm.backbone, settings=settings,
            group=group, protocol=protocol, metric=metric, minus=minus.label if minus else "",
            **Number.estimate(study.dataset, values, resampled[:, number], paper),
        )  # fmt: skip


def show(rows: list[Row], title: str) -> None:
    """NDCG@10 of every model; then what shuffling costs each and what it is above others, in percent."""
    shown = [row for row in rows if row.metric == "ndcg@10"]
    console = Console(markup=False, highlight=False)
    values = _table(title, "NDCG@10", paper=any(row.paper is not None for row in shown))
    differences = _table(None, "difference, percent", paper=False)
    found = {(row.group, row.label, row.minus, row.protocol): row for row in shown}
    before = {id(values): "", id(differences): ""}
    for group, label, minus in dict.fromkeys(key[:3] for key in found):
        table = differences if minus else values
        pair = [found[group, label, minus, protocol] for protocol in PROTOCOLS]
        if group != before[id(table)]:
            table.add_section()
            table.add_row(f"{group}, {pair[0].users:,} users")
            before[id(table)] = group
        if minus:
            bases = [found[group, minus, "", protocol].value for protocol in PROTOCOLS]
            over = "" if label == f"{minus}, shuffled" else f" over {minus}"
            table.add_row(f"  {label}{over}", *map(_percent, pair, bases))
        else:
            paper = pair[0].paper
            table.add_row(f"  {label}", *map(_plain, pair), "" if paper is None else f"{paper:.4f}")
    console.print(values)
    console.print(differences)
    if all(row.beside == "not comparable" for row in rows):
        console.print(f"{rows[0].dataset} is no store of the paper: none of its numbers compares.")


def _table(title: str | None, first: str, *, paper: bool) -> Table:
    table = Table(title=title, box=SIMPLE, title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in [*PROTOCOLS, *["the paper"] * paper]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _plain(row: Row) -> str:
    return f"{row.value:.4f} [{row.low:.3f}, {row.high:.3f}]"


def _percent(row: Row, base: float) -> str:
    if not base:
        return "from 0"
    value, low, high = (100 * part / base for part in (row.value, row.low, row.high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
