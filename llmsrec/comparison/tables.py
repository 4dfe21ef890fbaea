"""The paper's tables of a comparison: E1 to E5 as plain rows, for the terminal and for the page alike."""

from collections.abc import Iterable
from dataclasses import dataclass

from llmsrec.comparison.paired_tests import Difference
from llmsrec.comparison.results import Comparison
from llmsrec.comparison.tidy import CHANCE, Row

SAME = "="  # cannot be told from the reference
NONE = "·"  # a change that cannot be told from none
ASKED = {"retrieval": "ranks", "generation": "writes"}  # how a system answers in mode G


@dataclass(frozen=True)
class TableSpec:
    """`columns` say what stands in each cell of `rows`, after the name of the system."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]


def table_specs(found: Comparison) -> list[TableSpec]:
    """Those that have something to show beside chance, best first in each."""
    made = [
        _overall(found),
        *_by_order(found, "shuffled_training"),
        *_by_order(found, "shuffled_inference"),
        _written(found),
        _similar(found),
    ]
    return [exhibit for exhibit in made if any(row[0] != CHANCE for row in exhibit.rows)]


def chosen(found: Comparison, **wanted: str) -> dict[tuple[str, str], Row]:
    """By system and mode, best first; chance where it falls."""
    rows = [
        row
        for row in found.rows
        if all(getattr(row, name) == value for name, value in wanted.items())
    ]
    return {(row.system, row.mode): row for row in sorted(rows, key=lambda row: -row.value)}


def tests_by_system(
    found: Comparison, family: str, protocol: str
) -> dict[tuple[str, str], Difference]:
    tests = [test for test in found.tests if (test.family, test.protocol) == (family, protocol)]
    return {(test.system, test.mode): test for test in tests}


def _overall(found: Comparison) -> TableSpec:
    """SPEC E1."""
    plain = {"train": "original", "test": "original"}
    values = {
        (protocol, metric): chosen(found, protocol=protocol, metric=metric, **plain)
        for protocol in ("sampled", "full")
        for metric in ("ndcg@10", "hr@10")
    }
    tests = {name: tests_by_system(found, "reference", name) for name in ("sampled", "full")}
    paper = any(row.paper is not None for row in values["sampled", "ndcg@10"].values())
    rows = []
    for key in values["sampled", "ndcg@10"]:
        cells = [key[0]]
        for protocol in ("sampled", "full"):
            test = tests[protocol].get(key)
            mark = f"{SAME} " if test is not None and not test.different else ""
            cells.append(mark + _with_interval(values[protocol, "ndcg@10"][key]))
            cells.append(f"{values[protocol, 'hr@10'][key].value:.4f}")
        rows.append(cells + [_paper(values["sampled", "ndcg@10"][key])] * paper)
    return TableSpec(
        f"E1  Overall, {found.about['users']:,} users",
        f"Sampled: among {found.about['candidates']} candidates; full: among all items not bought before."
        + _meaning(found),
        ["", "NDCG@10 sampled", "HR@10", "NDCG@10 full", "HR@10", *["paper"] * paper],
        rows,
    )


def _by_order(found: Comparison, family: str) -> Iterable[TableSpec]:
    """SPEC E2, E3 and E4: what it costs that the order is lost, in either mode."""
    where = "training" if family == "shuffled_training" else "inference"
    lost = "train" if family == "shuffled_training" else "test"
    for protocol, metric, mode, number in (
        ("sampled", "ndcg@10", "R", "E2" if lost == "train" else "E4"),
        ("generation", "hr@1", "G", "E3" if lost == "train" else "E4"),
    ):
        tests = tests_by_system(found, family, protocol)
        wanted = {"protocol": protocol, "metric": metric, "train": "original", "test": "original"}
        true = chosen(found, **wanted)
        shuffled = chosen(found, **(wanted | {lost: "shuffled"}))
        paper = any(true[key].paper is not None for key in tests)
        rows = []
        for key in (key for key in true if key in tests):
            test, pair = tests[key], (true[key], shuffled[key])
            mark = "" if test.different else f"{NONE} "
            cells = [_named(key, mode), *(f"{row.value:.4f}" for row in pair), mark + _change(test)]
            rows.append(cells + [_paper_change(*pair)] * paper)
        users = found.about["users" if mode == "R" else "generation_users"]
        yield TableSpec(
            f"{number}  Shuffled {where}, mode {mode}, {users:,} users, {metric.upper()}",
            f"Change in percent, with its 95% interval; {NONE} : not told from none (Holm, {len(tests)} tests).",
            ["", "original", "shuffled", "change", *["paper"] * paper],
            rows,
        )


def _written(found: Comparison) -> TableSpec:
    """HR@1 of mode G beside how often an answer was one at all."""
    wanted = {"protocol": "generation", "train": "original", "test": "original"}
    first, valid = (chosen(found, metric=metric, **wanted) for metric in ("hr@1", "valid"))
    tests = tests_by_system(found, "reference", "generation")
    paper = any(row.paper is not None for row in first.values())
    rows = []
    for key, row in first.items():
        mark = f"{SAME} " if key in tests and not tests[key].different else ""
        answers = f"{valid[key].value:.4f}" if key in valid else ""
        rows.append([_named(key, "G"), mark + _with_interval(row), answers] + [_paper(row)] * paper)
    return TableSpec(
        f"Mode G, {found.about['generation_users']:,} users",
        f"HR@1 among {found.about['generation_candidates']} candidates, of all users: an answer that is none of "
        "them is wrong. Ranks: its first item; writes: the title that it wrote." + _meaning(found),
        ["", "HR@1", "valid answers", *["paper"] * paper],
        rows,
    )


def _similar(found: Comparison) -> TableSpec:
    """SPEC E5."""
    values = chosen(found, metric="cosine", train="original")
    paper = any(row.paper is not None for row in values.values())
    rows = [
        [system, _with_interval(row)] + [_paper(row)] * paper
        for (system, _), row in reversed(values.items())
    ]
    return TableSpec(
        f"E5  How alike a user stays when the history is shuffled, {found.about['users']:,} users",
        "Cosine of the two vectors; 1: order leaves no trace.",
        ["", "cosine", *["paper"] * paper],
        rows,
    )


def _meaning(found: Comparison) -> str:
    reference = found.about["reference"]
    tests = [test for test in found.tests if test.family == "reference"]
    if not tests:
        return f" {reference} is not among them: nobody is tested against it."
    return f" {SAME} : not told from {reference} (Holm, alpha {found.about['alpha']:g})."


def _named(key: tuple[str, str], mode: str) -> str:
    system, answers = key
    return f"{system}, {ASKED[answers]}" if mode == "G" and system != CHANCE else system


def _with_interval(row: Row) -> str:
    return f"{row.value:.4f} [{row.low:.3f}, {row.high:.3f}]"


def _change(test: Difference) -> str:
    if test.change is None:
        return "from 0"
    return f"{test.change:+.1f}% [{test.change_low:+.1f}, {test.change_high:+.1f}]"


def _paper(row: Row) -> str:
    return "" if row.paper is None else f"{row.paper:.4f}"


def _paper_change(true: Row, shuffled: Row) -> str:
    if true.paper is None or shuffled.paper is None:
        return ""
    return f"{100 * (shuffled.paper / true.paper - 1):+.1f}%"
