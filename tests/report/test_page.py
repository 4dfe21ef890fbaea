"""The report: an HTML file that opens anywhere, loads nothing and shows every number."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.evaluation.per_user import METRICS, EvaluationConfig, summarise
from llmsrec.report.cases import select_cases
from llmsrec.report.page import Diagnostics, ReportContent, write_report
from llmsrec.report.plots import FAMILIES
from llmsrec.report.projection import project
from llmsrec.report.verdict import verdict

VOID = {"meta", "br", "hr", "img", "link", "input"}
EVIL = '<script>alert("x")</script> & <b>bold</b>'
CONTENT = ReportContent(
    interactions={
        "reviews": {"lines": 12345, "rejects": 6, "duplicates": 7},
        "items_without_metadata": 8, "first_day": "2001-02-03", "last_day": "2023-04-05",
    },
    splits={"users": 300, "items": 40, "interactions": 2222, "mean_length": 7.41, "tie_share": 0.123},
    teacher_training=[{"step": 1, "loss": 2.0, "ndcg@10": 0.1, "hr@10": 0.2}],
    student_training=[{"step": 9, "loss": 2.0, "ndcg@10": 0.1, "hr@10": 0.2}],
    backbone_note=f"The language model is {EVIL}.",
)  # fmt: skip


class Page(HTMLParser):
    """Tags that close in order, and everything that a browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name.split(":")[-1] in ("src", "href", "srcset", "data", "action", "background"):
                self.loads.append(value or "")
            assert not name.startswith("on")  # no code in an attribute

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


class Fixed:
    """Every user gets the same scores; the padding would win."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = np.array(scores, dtype=np.float32)

    def score(self, histories: Sequences) -> np.ndarray:
        return np.broadcast_to(self.scores, (len(histories), len(self.scores)))


def with_titles(splits: Splits, title: str) -> Splits:
    items = splits.catalog.items.assign(title=title)
    return Splits(
        Catalog(items), splits.user_ids, splits.sequences, splits.train_lengths, splits.targets,
        splits.candidates, splits.generation_candidates,
    )  # fmt: skip


@pytest.fixture(scope="module")
def metrics(markov_splits: Splits) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    names = ("popularity", "markov", "teacher", "student", "teacher_shuffled", "student_shuffled")
    table = {
        name: {protocol: draws.random((300, len(METRICS))) for protocol in ("sampled", "full")}
        for name in names
    }
    config = EvaluationConfig(bootstrap=50, shuffles=1, shuffle_window=None, seed=0)
    found = summarise(table, markov_splits, config, f"store {EVIL}")
    return {
        **found,
        "lists": {
            name: {"coverage@10": 0.5, "novelty@10": 4.321, "gini@10": 0.6} for name in names[:4]
        },
        "verdict": verdict(found, []),
        "tied_at_median": 3,
        "similarity": {"teacher": {"value": 0.61234}, "student": {"value": 0.8}},
    }


def written(path: Path, metrics: dict[str, Any], splits: Splits) -> str:
    rankers = {name: Fixed([99.0, *range(40, 0, -1)]) for name in ("teacher", "student")}
    table = {name: {"sampled": np.ones((300, len(METRICS)))} for name in rankers}
    draws = np.random.default_rng(3)
    diagnostics = Diagnostics(
        gates=[
            {
                "name": name,
                "success": name == "order",
                "severity": "warn",
                "description": EVIL,
                "observed": "none",
            }
            for name in ("order", "teacher")
        ],
        groups=[
            {
                "family": family,
                "group": "some",
                "system": system,
                "protocol": protocol,
                "value": 0.4,
                "low": 0.3,
                "high": 0.5,
                "users": 150,
            }
            for family in FAMILIES
            for system in ("teacher", "student")
            for protocol in ("sampled", "full")
        ],
        similarity={"student": draws.random(300)},
        maps={"before": project(draws.random((9, 4)), draws.random((7, 4)))},
        cases=select_cases(rankers, splits, table),
        previous=metrics | {"systems": {"student": metrics["systems"]["student"]}},
    )
    write_report(path, metrics, diagnostics, CONTENT)
    return path.read_text()


@pytest.fixture(scope="module")
def page(
    tmp_path_factory: pytest.TempPathFactory, metrics: dict[str, Any], markov_splits: Splits
) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    return written(path, metrics, with_titles(markov_splits, EVIL))


def test_the_page_is_complete_and_loads_nothing(page: str) -> None:
    found = Page(page)
    assert page.startswith("<!doctype html>")
    for tag in ("script", "link", "iframe", "img", "object", "embed", "base", "form"):
        assert tag not in found.tags
    assert found.tags.count("svg") == 10
    assert all(target.startswith("#") for target in found.loads)
    for word in ("@import", "url(http", "url('http", 'url("http', "javascript:"):
        assert word not in page
    addresses = {part.split('"')[0] for part in page.split("http")[1:]}
    assert addresses <= {"://www.w3.org/2000/svg", "://www.w3.org/1999/xlink"}  # names, not links


def test_titles_are_escaped(page: str) -> None:
    """Titles of a store, its name, and the note on the backbone."""
    assert "<script" not in page
    assert "<b>" not in page
    text = "".join(Page(page).text)
    assert text.count(EVIL) > 10
    assert f"store {EVIL}: how good are" in text
    assert f"The language model is {EVIL}." in text


def test_the_page_contains_the_metrics(page: str, metrics: dict[str, Any]) -> None:
    text = "".join(Page(page).text)
    for system in metrics["systems"].values():
        for protocol in ("sampled", "full"):
            for name in ("ndcg@10", "hr@10", "mrr"):
                cell = system[protocol][name]
                shown = f"{cell['value']:.4f}[{cell['low']:.4f}, {cell['high']:.4f}]"
                assert shown in text
    for fact in ("12,345", "2,222", "7.4", "12%", "2001-02-03 to 2023-04-05", "300 test users"):
        assert fact in text
    assert len(metrics["verdict"]) == 3
    for statement in metrics["verdict"]:
        assert statement["text"] in text
    for row in metrics["differences"]:
        assert f"{row['value']:+.4f}[{row['low']:+.4f}, {row['high']:+.4f}]" in text
    assert "Teacher (SASRec)50.0%4.320.600" in text
    assert "0.612" in text


def test_every_row_of_a_table_has_a_cell_for_each_column(page: str) -> None:
    tables = page.split("<table>")[1:]
    assert len(tables) == 6  # two of quality, rivals, lists, changes, order
    for table in tables:
        head, body = table.split("</table>")[0].split("<tbody>")
        for row in body.split("<tr")[1:]:
            assert row.count("<td") == head.count("<th>"), head


def test_gates_and_rivals_show_the_worst_first(page: str, metrics: dict[str, Any]) -> None:
    rows = [row for row in metrics["differences"] if row["a"] == "student"]
    worst = min(rows, key=lambda row: row["relative"])
    rivals = page.split("Student minus another system")[1].split("<tbody>")[1]
    assert f"{worst['value']:+.4f}" in rivals.split("</tr>")[0]
    assert page.index("<strong>Warning:") < page.index("<strong>Passed:")


def test_the_same_inputs_give_the_same_bytes(
    tmp_path: Path, page: str, metrics: dict[str, Any], markov_splits: Splits
) -> None:
    assert written(tmp_path / "again.html", metrics, with_titles(markov_splits, EVIL)) == page


def test_a_report_without_shuffles_or_curves(tmp_path: Path, markov_splits: Splits) -> None:
    table = {
        "popularity": {
            protocol: np.full((20, len(METRICS)), 0.3) for protocol in ("sampled", "full")
        }
    }
    config = EvaluationConfig(bootstrap=20, shuffles=0, shuffle_window=None, seed=0)
    metrics = summarise(table, markov_splits, config, "bare") | {"verdict": []}
    bare = ReportContent(CONTENT.interactions, CONTENT.splits, [], [], "")
    write_report(tmp_path / "report.html", metrics, Diagnostics([], [], {}, {}, []), bare)
    found = Page((tmp_path / "report.html").read_text())
    assert found.tags.count("svg") == 1
