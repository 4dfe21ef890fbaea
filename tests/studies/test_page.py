"""The page of a comparison stands alone, and says no more than the corrected tests allow."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmsrec.comparison.page import save_page, verdict
from llmsrec.comparison.paired_tests import Difference
from llmsrec.comparison.results import Comparison
from llmsrec.comparison.tidy import Row


def row(system: str, value: float, **other: Any) -> Row:
    cell = {
        "mode": "retrieval",
        "train": "original",
        "test": "original",
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
        **{"dataset": "<shop>", "system": system, "value": value, **cell, **numbers, "seeds": 1, "users": 1234,
           "paper": None, "beside": "not comparable", **other}
    )  # fmt: skip


def difference(system: str, gap: float, *, different: bool) -> Difference:
    cells = ("retrieval", "original", "original")
    return Difference(
        "<shop>", "reference", "sampled", "ndcg@10", system, *cells, "llmsrec", *cells, gap,
        gap, gap, None, None, None, 0.5, 0.5, different, 1234, 1,
    )  # fmt: skip


@pytest.fixture
def found() -> Comparison:
    rows = [
        row(system, value + other, metric=metric, protocol=protocol)
        for system, value in (("llmsrec", 0.4), ("sasrec", 0.3), ("twin", 0.39), ("chance", 0.05))
        for metric, other in (("ndcg@10", 0.0), ("hr@10", 0.1))
        for protocol in ("sampled", "full")
    ]
    rows += [row("sasrec", 0.25, test="shuffled")]
    tests = [difference("sasrec", -0.1, different=True), difference("twin", -0.01, different=False)]
    about = {
        "dataset": "<shop>", "reference": "llmsrec", "alpha": 0.05, "bootstrap": 100, "users": 1234, "items": 77,
        "generation_users": 200, "candidates": 100, "generation_candidates": 20, "seeds": [0],
    }  # fmt: skip
    trained = [
        {"system": "sasrec", "mode": "retrieval", "order": "original", "seed": 0, "parameters": 1234567,
         "stages": [{"ended": 30, "step": 20, "valid ndcg@10": 0.31}]},
        {"system": "twin", "mode": "retrieval", "order": "original", "seed": 0, "parameters": 0, "stages": []},
    ]  # fmt: skip
    return Comparison("<shop>", rows, tests, trained, about)


def test_the_page_needs_nothing_beside_it(found: Comparison, tmp_path: Path) -> None:
    save_page(found, tmp_path / "one")
    save_page(found, tmp_path / "two")
    page = (tmp_path / "one/comparison.html").read_text()
    assert page == (tmp_path / "two/comparison.html").read_text()
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
    assert "&lt;shop&gt;: beside other systems" in page
    assert "<shop>" not in page
    assert "0.3900<small>[0.380, 0.400]</small>" in page
    assert "1,234,567" in page
    assert "ndcg@10 0.3100 at 20 of 30" in page
    assert "counts only" in page
    assert page.count("<svg") == 1  # nobody answered in mode G
    assert (tmp_path / "one/comparison.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_shown_of_a_mode_in_which_chance_stands_alone(
    found: Comparison, tmp_path: Path
) -> None:
    mode_g: dict[str, Any] = {"protocol": "generation", "metric": "hr@1"}
    written = [row("tallrec", 0.2, mode="generation", **mode_g), row("chance", 0.05, **mode_g)]
    alone = [
        row("chance", 0.05, metric=metric, protocol=protocol)
        for metric in ("ndcg@10", "hr@10")
        for protocol in ("sampled", "full")
    ]
    save_page(replace(found, rows=[*written, *alone], tests=[]), tmp_path)
    page = (tmp_path / "comparison.html").read_text()
    assert page.count("<svg") == 1
    assert "HR@1 among 20 candidates, mode G." in page
    assert "Overall" not in page


def test_the_verdict_is_that_of_the_corrected_tests(found: Comparison) -> None:
    assert verdict(found) == [
        "On NDCG@10 among candidates llmsrec is ahead of sasrec; it cannot be told from twin."
    ]
    everyone = replace(found, tests=[replace(test, different=True) for test in found.tests])
    assert verdict(everyone) == ["On NDCG@10 among candidates llmsrec is ahead of all 2 others."]
    assert "nobody is tested" in verdict(replace(found, tests=[]))[0]
