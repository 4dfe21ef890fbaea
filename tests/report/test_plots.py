"""Pictures: SVG that is the same bytes each time, without a date, in the page's colours."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from llmsrec.report.plots import (
    PRINT,
    ndcg_by_system,
    original_and_shuffled,
    quality_by_group,
    save_png,
    scatter,
    similarity_histogram,
    svg,
    training_curve,
)
from llmsrec.report.projection import project

NUMBERS = {"popularity": 0.1, "markov": 0.3, "teacher": 0.4, "student": 0.45,
           "teacher_shuffled": 0.2, "student_shuffled": 0.25}  # fmt: skip
CURVE: list[dict[str, int | float]] = [
    {"step": 2, "loss": 5.0, "ndcg@10": 0.1, "hr@10": 0.2},
    {"step": 4, "loss": 4.0, "ndcg@10": 0.3, "hr@10": 0.5},
]


def metrics_of(numbers: dict[str, float], spread: float = 0.02) -> dict[str, Any]:
    def row(value: float) -> dict[str, Any]:
        return {"ndcg@10": {"value": value, "low": value - spread, "high": value + spread}}

    return {
        "systems": {
            name: {"sampled": row(value), "full": row(value / 2)} for name, value in numbers.items()
        }
    }


def grouped() -> list[dict[str, Any]]:
    return [
        {"family": "target", "group": group, "system": system, "protocol": protocol,
         "value": value, "low": value - 0.01, "high": value + 0.02}
        for group, value in (("warm", 0.4), ("cold", 0.1)) for system in ("teacher", "student")
        for protocol in ("sampled", "full")
    ]  # fmt: skip


def texts(picture: str) -> list[str]:
    root = ElementTree.fromstring(picture)
    return ["".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("text")]


PICTURES: dict[str, Callable[[], Figure | None]] = {
    "systems": lambda: ndcg_by_system(metrics_of(NUMBERS)),
    "shuffled": lambda: original_and_shuffled(metrics_of(NUMBERS)),
    "curve": lambda: training_curve(CURVE, "epoch"),
    "group": lambda: quality_by_group(grouped(), "target"),
    "similarity": lambda: similarity_histogram({"student": np.linspace(-0.2, 0.9, 50)}),
    "sheet": lambda: scatter(project(np.eye(5), np.eye(5)[:3])),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_same_numbers_give_the_same_bytes_without_a_date(name: str) -> None:
    first, again = (svg(figure) for figure in (PICTURES[name](), PICTURES[name]()) if figure)
    assert first == again
    assert first.startswith("<svg")
    assert 'class="plot"' in first
    for word in ("dc:date", "<metadata", "matplotlib.org", "#10101"):
        assert word not in first
    assert not re.search(r"\d{4}-\d\d-\d\d", first)
    assert "var(--ink)" in first  # so that the picture suits a dark page too


def test_bars_carry_the_values_of_both_rankings_and_names() -> None:
    figure = ndcg_by_system(metrics_of(NUMBERS))
    bars = [[round(bar.get_width(), 6) for bar in axes.patches] for axes in figure.axes]
    assert bars == [[0.1, 0.3, 0.4, 0.45], [0.05, 0.15, 0.2, 0.225]]
    shown = texts(svg(figure))
    for text in (
        "Popularity",
        "Markov chain",
        "Teacher (SASRec)",
        "Student (LLM-SRec)",
        "0.450",
        "0.225",
    ):
        assert text in shown
    assert "Teacher (SASRec), shuffled" not in shown


def test_original_and_shuffled_bars_are_side_by_side() -> None:
    figure = original_and_shuffled(metrics_of(NUMBERS))
    assert figure is not None
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    assert heights == [[0.4, 0.45, 0.2, 0.25], [0.2, 0.225, 0.1, 0.125]]
    shown = texts(svg(figure))
    assert "shuffled history" in shown
    assert "0.250" in shown


def test_a_plot_without_data_is_not_drawn() -> None:
    unshuffled = {name: value for name, value in NUMBERS.items() if "shuffled" not in name}
    assert original_and_shuffled(metrics_of(unshuffled)) is None
    assert training_curve([], "epoch") is None
    assert training_curve([{"step": 1, "loss": 2.0}], "epoch") is None


def test_the_curve_shows_both_metrics_by_step() -> None:
    figure = training_curve(CURVE, "epoch")
    assert figure is not None
    lines = {
        str(line.get_label()): [list(map(float, data)) for data in line.get_data()]
        for line in figure.axes[0].lines
    }
    assert lines == {"HR@10": [[2, 4], [0.2, 0.5]], "NDCG@10": [[2, 4], [0.1, 0.3]]}
    assert "epoch" in texts(svg(figure))


@pytest.mark.parametrize("value", [0.0, 0.454, 1.0])
def test_numbers_without_spread_can_be_drawn(value: float) -> None:
    """All zero, or an end of the interval that rounding has pushed past the value."""
    same = metrics_of(dict.fromkeys(NUMBERS, value), spread=-1e-9 if value else 0.0)
    svg(ndcg_by_system(same))
    figure = original_and_shuffled(same)
    assert figure is not None
    svg(figure)


def test_the_printed_picture_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    files = [tmp_path / "first.png", tmp_path / "again.png"]
    for file in files:
        save_png(ndcg_by_system(metrics_of(NUMBERS), PRINT), file)
    first, again = (file.read_bytes() for file in files)
    assert first == again
    assert first.startswith(b"\x89PNG")
    assert b"tEXt" not in first  # neither date nor version


def test_groups_are_side_by_side_and_unknown_groupings_have_no_plot() -> None:
    figure = quality_by_group(grouped(), "target")
    assert figure is not None
    assert {"warm", "cold", "popularity of the next item", "NDCG@10"} <= set(texts(svg(figure)))
    assert quality_by_group(grouped(), "activity") is None
    assert similarity_histogram({}) is None
