"""The page of a study stands alone, and says no more than the corrected tests allow."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studies.page import save_page, verdict
from studies.table import Row, StudyResult


def row(system: str, value: float, **other: Any) -> Row:
    cell = {
        "train": "original",
        "test": "original",
        "group": "all",
        "protocol": "sampled",
        "metric": "ndcg@10",
    }
    numbers = {
        "low": value - 0.01,
        "high": value + 0.01,
        "lowest_seed": value,
        "highest_seed": value,
    }
    return Row(
        **{
            "dataset": "<shop>",
            "system": system,
            "value": value,
            **cell,
            **numbers,
            "seeds": 1,
            "users": 1234,
            "versus_paper": "not comparable",
            **other,
        }
    )


def difference(system: str, gap: float, *, different: bool, protocol: str = "sampled") -> Row:
    test = {"minus": "llmsrec", "family": "reference", "p": 0.5, "p_holm": 0.5}
    return row(system, gap, different=different, protocol=protocol, **test)


@pytest.fixture
def result() -> StudyResult:
    rows = [
        row(system, value + other, metric=metric, protocol=protocol)
        for system, value in (("llmsrec", 0.4), ("sasrec", 0.3), ("twin", 0.39), ("chance", 0.05))
        for metric, other in (("ndcg@10", 0.0), ("hr@10", 0.1))
        for protocol in ("sampled", "full")
    ]
    rows += [row("sasrec", 0.25, test="shuffled")]
    tests = [
        difference("sasrec", -0.1, different=True),
        difference("twin", -0.01, different=False),
        difference("sasrec", 0.1, different=True, protocol="full"),
        difference("twin", -0.1, different=True, protocol="full"),
    ]
    about = {
        "study": "overall", "summary": "All.", "dataset": "<shop>", "reference": "llmsrec",
        "alpha": 0.05, "bootstrap": 100, "users": 1234, "items": 77,
        "generation_users": 200, "candidates": 100, "generation_candidates": 20, "seeds": [0],
    }  # fmt: skip
    trained = [
        {"system": "sasrec", "order": "original", "seed": 0, "parameters": 1234567,
         "stages": [{"ended": 30, "step": 20, "valid ndcg@10": 0.31}], "weights": {}},
        {"system": "twin", "order": "original", "seed": 0, "parameters": 0, "stages": [], "weights": {}},
        {"system": "sum", "order": "original", "seed": 0, "parameters": 0, "stages": [],
         "weights": {"sasrec": 0.91234, "content": 12.5}},
    ]  # fmt: skip
    return StudyResult(rows + tests, trained, about)


def test_the_page_is_self_contained(result: StudyResult, tmp_path: Path) -> None:
    save_page(result, tmp_path / "one", "page")
    save_page(result, tmp_path / "two", "page")
    page = (tmp_path / "one/page.html").read_text()
    assert page == (tmp_path / "two/page.html").read_text()
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
    assert "&lt;shop&gt;: overall" in page
    assert "<shop>" not in page
    assert "0.3900<small>[0.380, 0.400]</small>" in page
    assert "1,234,567" in page
    assert "ndcg@10 0.3100 at 20 of 30" in page
    assert "nothing trained" in page
    assert "those of its parts" in page
    assert ">0.912 sasrec + 12.5 content<" in page
    assert page.count("<svg") == 2  # no system was evaluated on titles
    assert (tmp_path / "one/page.png").read_bytes().startswith(b"\x89PNG")


def test_a_protocol_at_chance_level_is_not_shown(result: StudyResult, tmp_path: Path) -> None:
    titles: dict[str, Any] = {"protocol": "generation", "metric": "hr@1"}
    written = [row("tallrec_generation", 0.2, **titles), row("chance", 0.05, **titles)]
    alone = [
        row("chance", 0.05, metric=metric, protocol=protocol)
        for metric in ("ndcg@10", "hr@10")
        for protocol in ("sampled", "full")
    ]
    save_page(replace(result, rows=[*written, *alone]), tmp_path, "page")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 1
    assert "HR@1 among 20 candidates." in page
    assert "Overall" not in page


def test_the_verdict_is_that_of_the_corrected_tests(result: StudyResult) -> None:
    assert verdict(result) == [
        {"news": "bad", "text": "On NDCG@10 among all items llmsrec is behind sasrec; it is ahead of twin."},
        {"news": "open",
         "text": "On NDCG@10 among candidates llmsrec does not differ from twin; it is ahead of sasrec."},
    ]  # fmt: skip
    ahead = [replace(row, different=True, value=-0.1) if row.minus else row for row in result.rows]
    assert verdict(replace(result, rows=ahead)) == [
        {"news": "good", "text": f"On NDCG@10 {place} llmsrec is ahead of all 2 others."}
        for place in ("among candidates", "among all items")
    ]
    untested = replace(result, rows=[row for row in result.rows if not row.minus])
    assert "no system is tested" in verdict(untested)[0]["text"]
