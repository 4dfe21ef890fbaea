"""The paper's tables of a study, E1 to E7, as plain rows for the terminal and for the page."""

from collections.abc import Iterable
from dataclasses import dataclass

from studies.commands import print_table
from studies.table import CHANCE, Row, StudyResult

SAME = "="  # not significantly different from the reference
NO_CHANGE = "·"  # a change that is not significant
GROUPS = ("warm", "cold", "transition", "non-transition")


@dataclass(frozen=True)
class TableSpec:
    """`columns` names each cell of `rows`; the first is the system."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]


def table_specs(result: StudyResult) -> list[TableSpec]:
    """The tables that have a row beside chance, best first in each."""
    specs = [
        _overall(result),
        *_by_order(result, "shuffled_training"),
        *_by_order(result, "shuffled_inference"),
        _first_choice(result),
        _similarity(result),
        _groups(result, "sampled", "among candidates"),
        _groups(result, "full", "among all items"),
    ]
    return [spec for spec in specs if any(row[0] != CHANCE for row in spec.rows)]


def print_tables(result: StudyResult) -> None:
    """All tables in the terminal, within 100 columns."""
    for spec in table_specs(result):
        title = f"{result.about['dataset']}: {spec.title}"
        print_table(title, spec.columns, spec.rows, note=spec.note)


def _overall(result: StudyResult) -> TableSpec:
    """Specification E1."""
    plain = {"train": "original", "test": "original"}
    values = {
        (protocol, metric): result.values(protocol=protocol, metric=metric, **plain)
        for protocol in ("sampled", "full")
        for metric in ("ndcg@10", "hr@10")
    }
    tests = {protocol: result.tests("reference", protocol) for protocol in ("sampled", "full")}
    paper = any(row.paper is not None for row in values["sampled", "ndcg@10"].values())
    rows = []
    for system, first in values["sampled", "ndcg@10"].items():
        cells = [system]
        for protocol in ("sampled", "full"):
            mark = _mark(tests[protocol].get(system), SAME)
            cells.append(mark + _with_interval(values[protocol, "ndcg@10"][system]))
            cells.append(f"{values[protocol, 'hr@10'][system].value:.4f}")
        rows.append(cells + [_paper(first)] * paper)
    return TableSpec(
        f"E1  Overall, {result.about['users']:,} users",
        f"Sampled: among {result.about['candidates']} candidates; full: among all items not bought before."
        + _meaning(result),
        ["", "NDCG@10 sampled", "HR@10", "NDCG@10 full", "HR@10", *["paper"] * paper],
        rows,
    )


def _by_order(result: StudyResult, family: str) -> Iterable[TableSpec]:
    """Specification E2, E3 and E4: what the loss of order costs, for retrieval and for generation."""
    where = "training" if family == "shuffled_training" else "inference"
    changed = "train" if family == "shuffled_training" else "test"
    for protocol, metric, kind, number in (
        ("sampled", "ndcg@10", "among candidates", "E2" if changed == "train" else "E4"),
        ("full", "ndcg@10", "among all items", "E2" if changed == "train" else "E4"),
        ("generation", "hr@1", "generation", "E3" if changed == "train" else "E4"),
    ):
        tests = result.tests(family, protocol)
        wanted = {"protocol": protocol, "metric": metric, "train": "original", "test": "original"}
        original = result.values(**wanted)
        shuffled = result.values(**(wanted | {changed: "shuffled"}))
        paper = any(original[system].paper is not None for system in tests)
        rows = []
        for system in (system for system in original if system in tests):
            pair = original[system], shuffled[system]
            change = _mark(tests[system], NO_CHANGE) + _change(tests[system])
            cells = [system, *(f"{row.value:.4f}" for row in pair), change]
            rows.append(cells + [_paper_change(*pair)] * paper)
        users = result.about["generation_users" if kind == "generation" else "users"]
        yield TableSpec(
            f"{number}  Shuffled {where}, {kind}, {users:,} users, {metric.upper()}",
            f"Change in percent with its 95% interval; {NO_CHANGE}: not significant (Holm, {len(tests)} tests).",
            ["", "original", "shuffled", "change", *["paper"] * paper],
            rows,
        )


def _first_choice(result: StudyResult) -> TableSpec:
    """HR@1 of title generation and the share of answers that are a candidate's title."""
    wanted = {"protocol": "generation", "train": "original", "test": "original"}
    first, valid = (result.values(metric=metric, **wanted) for metric in ("hr@1", "valid"))
    tests = result.tests("reference", "generation")
    paper = any(row.paper is not None for row in first.values())
    rows = []
    for system, row in first.items():
        answers = f"{valid[system].value:.4f}" if system in valid else ""
        cells = [system, _mark(tests.get(system), SAME) + _with_interval(row), answers]
        rows.append(cells + [_paper(row)] * paper)
    return TableSpec(
        f"Generation, {result.about['generation_users']:,} users",
        f"HR@1 among {result.about['generation_candidates']} candidates. The answer of a system that retrieves is its "
        "first item; an answer that is no candidate is wrong." + _meaning(result),
        ["", "HR@1", "valid answers", *["paper"] * paper],
        rows,
    )


def _similarity(result: StudyResult) -> TableSpec:
    """Specification E5."""
    values = result.values(metric="cosine", train="original")
    paper = any(row.paper is not None for row in values.values())
    return TableSpec(
        f"E5  Similarity of a user to the same user shuffled, {result.about['users']:,} users",
        "Cosine of the two vectors; 1: order leaves no trace.",
        ["", "cosine", *["paper"] * paper],
        [
            [system, _with_interval(row)] + [_paper(row)] * paper
            for system, row in reversed(values.items())
        ],
    )


def _groups(result: StudyResult, protocol: str, place: str) -> TableSpec:
    """Specification E6 and E7."""
    wanted = {"protocol": protocol, "metric": "ndcg@10", "train": "original", "test": "original"}
    values = {group: result.values(group=group, **wanted) for group in GROUPS}
    tests = {group: result.tests("reference", protocol, group) for group in GROUPS}
    systems = [name for name in result.values(**wanted) if all(name in v for v in values.values())]
    return TableSpec(
        f"E6, E7  Groups of users, NDCG@10 {place}",
        "Warm, cold: how often the target was bought in training; transition: the half of the users whose purchases "
        "follow one another as others' do." + _meaning(result),
        ["", *GROUPS],
        [
            [name, *(_mark(tests[g].get(name), SAME) + f"{values[g][name].value:.4f}" for g in GROUPS)]
            for name in systems
        ],
    )  # fmt: skip


def _meaning(result: StudyResult) -> str:
    reference = result.about["reference"]
    if not any(row.family == "reference" for row in result.rows):
        return f" {reference} is not in this study: no system is tested against it."
    return f" {SAME}: not different from {reference} (Holm, alpha {result.about['alpha']:g})."


def _mark(test: Row | None, mark: str) -> str:
    return f"{mark} " if test is not None and not test.different else ""


def _with_interval(row: Row) -> str:
    return f"{row.value:.4f} [{row.low:.3f}, {row.high:.3f}]"


def _change(test: Row) -> str:
    if test.change is None:
        return "from 0"
    return f"{test.change:+.1f}% [{test.change_low:+.1f}, {test.change_high:+.1f}]"


def _paper(row: Row) -> str:
    return "" if row.paper is None else f"{row.paper:.4f}"


def _paper_change(original: Row, shuffled: Row) -> str:
    if original.paper is None or shuffled.paper is None:
        return ""
    return f"{100 * (shuffled.paper / original.paper - 1):+.1f}%"
