"""Plots of the report as SVG with the colours of the page, for light and dark mode."""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from llmsrec.core.files import atomic_write
from llmsrec.evaluation.systems import SHUFFLED, label
from llmsrec.report.projection import Projection


@dataclass(frozen=True)
class Palette:
    ink: str
    soft: str
    accent: str
    second: str

    @property
    def style(self) -> Any:  # matplotlib types its keys one by one
        return {
            "svg.hashsalt": "llmsrec",
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "font.size": 10.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": self.soft,
            "axes.labelcolor": self.ink,
            "xtick.color": self.ink,
            "ytick.color": self.ink,
            "text.color": self.ink,
            "grid.color": self.soft,
            "grid.linewidth": 0.7,
        }


PRINT = Palette("#1f2430", "#c9cfda", "#2a6f97", "#c8553d")
PAGE = Palette("#101010", "#101011", "#101012", "#101013")  # `svg` replaces them by variables
VARIABLES = {PAGE.ink: "var(--ink)", PAGE.soft: "var(--line)", PAGE.accent: "var(--accent)",
             PAGE.second: "var(--second)"}  # fmt: skip
PANELS = {"sampled": "among the candidates", "full": "among all items"}  # of a figure, by ranking


def ndcg_by_system(metrics: dict[str, Any], palette: Palette = PAGE) -> Figure:
    """NDCG@10 with its interval of each system on the original histories: a bar in each ranking."""
    names = [name for name in metrics["systems"] if not name.endswith(SHUFFLED)]
    highlights = {"student": palette.accent, "teacher": palette.second}
    with plt.rc_context(palette.style):
        figure, panels = plt.subplots(1, 2, figsize=(9.4, 0.5 * len(names) + 1.1), sharey=True)
        for axes, (protocol, title) in zip(panels, PANELS.items(), strict=True):
            rows = [metrics["systems"][name][protocol]["ndcg@10"] for name in names]
            axes.barh(
                [label(name) for name in names], [row["value"] for row in rows], height=0.62,
                color=[highlights.get(name, palette.soft) for name in names],
                xerr=_whiskers(rows), error_kw={"ecolor": palette.ink, "elinewidth": 1.2, "capsize": 3},
            )  # fmt: skip
            for place, row in enumerate(rows):
                axes.annotate(
                    f"{row['value']:.3f}", (row["high"], place), (7, 0), textcoords="offset points", va="center"
                )  # fmt: skip
            axes.set_xlim(0, 1.25 * max(row["high"] for row in rows) or 1)
            axes.set_title(title, fontsize=10.5)
            axes.set_xlabel("NDCG@10")
            axes.tick_params(axis="y", length=0)
        panels[0].invert_yaxis()
        figure.tight_layout()
    return figure


def original_and_shuffled(metrics: dict[str, Any], palette: Palette = PAGE) -> Figure | None:
    """NDCG@10 of teacher and student on original and shuffled histories; None without shuffled runs."""
    systems = metrics["systems"]
    models = [name for name in ("teacher", "student") if f"{name}{SHUFFLED}" in systems]
    if not models:
        return None
    with plt.rc_context(palette.style):
        figure, panels = plt.subplots(1, 2, figsize=(9.4, 3.1))
        for axes, (protocol, title) in zip(panels, PANELS.items(), strict=True):
            for shift, ending, colour, text in (
                (-0.18, "", palette.accent, "original history"),
                (0.18, SHUFFLED, palette.soft, "shuffled history"),
            ):
                rows = [systems[name + ending][protocol]["ndcg@10"] for name in models]
                places = [place + shift for place in range(len(models))]
                axes.bar(
                    places, [row["value"] for row in rows], width=0.34, color=colour, label=text,
                    yerr=_whiskers(rows), error_kw={"ecolor": palette.ink, "elinewidth": 1.2, "capsize": 3},
                )  # fmt: skip
                for place, row in zip(places, rows, strict=True):
                    axes.text(place, row["high"], f"{row['value']:.3f}", ha="center", va="bottom")
            axes.set_xticks(range(len(models)), [label(name) for name in models])
            axes.set_title(title, fontsize=10.5)
            axes.set_ylabel("NDCG@10")
            axes.margins(y=0.15)
        handles, texts = panels[0].get_legend_handles_labels()
        figure.legend(handles, texts, frameon=False, loc="upper center", ncols=2)
        figure.tight_layout(rect=(0, 0, 1, 0.92))
    return figure


FAMILIES = {
    "target": "popularity of the next item",
    "transitions": "transition score",
    "activity": "length of the history",
    "popularity": "popularity of the next item, in tenths (1: most popular)",
}


def quality_by_group(
    groups: list[dict[str, Any]], family: str, palette: Palette = PAGE
) -> Figure | None:
    """NDCG@10 of teacher and student in each group of a family, one ranking above the other; None without groups."""
    rows = [row for row in groups if row["family"] == family]
    names = list(dict.fromkeys(row["group"] for row in rows))
    if not names:
        return None
    with plt.rc_context(palette.style):
        figure, panels = plt.subplots(2, 1, figsize=(4.8, 4.4), sharex=True)
        for axes, (protocol, title) in zip(panels, PANELS.items(), strict=True):
            for shift, model, colour in (
                (-0.19, "teacher", palette.second),
                (0.19, "student", palette.accent),
            ):
                shown = [
                    row for row in rows if (row["system"], row["protocol"]) == (model, protocol)
                ]
                axes.bar(
                    [names.index(row["group"]) + shift for row in shown], [row["value"] for row in shown],
                    width=0.36, color=colour, label=label(model), yerr=_whiskers(shown),
                    error_kw={"ecolor": palette.ink, "elinewidth": 1.2, "capsize": 2},
                )  # fmt: skip
            axes.tick_params(axis="x", length=0)
            axes.set_ylabel("NDCG@10")
            axes.set_title(title, fontsize=10.5)
        panels[1].set_xticks(range(len(names)), names)
        panels[1].set_xlabel(FAMILIES[family])
        handles, texts = panels[0].get_legend_handles_labels()
        figure.legend(handles, texts, frameon=False, ncols=2, loc="upper center")
        figure.tight_layout(rect=(0, 0, 1, 0.94))
    return figure


def similarity_histogram(
    similarity: dict[str, Float[np.ndarray, "users"]], palette: Palette = PAGE
) -> Figure | None:
    """Histogram of the cosine of a user and the same user shuffled; None without shuffled runs."""
    if not similarity:
        return None
    low = min(0.0, *(float(values.min()) for values in similarity.values()))
    bins = np.linspace(low, 1, 41).tolist()
    with plt.rc_context(palette.style):
        figure, axes = plt.subplots(figsize=(6.4, 2.6))
        for name, colour in (("teacher", palette.second), ("student", palette.accent)):
            if name in similarity:
                share = np.full(len(similarity[name]), 100 / len(similarity[name]))
                axes.hist(similarity[name], bins=bins, weights=share, histtype="step", color=colour,
                          label=label(name), linewidth=1.8)  # fmt: skip
        axes.set_xlim(low, 1)
        axes.set_xlabel("cosine of a user and the same user shuffled")
        axes.set_ylabel("% of users")
        axes.legend(frameon=False, loc="upper left")
        figure.tight_layout()
    return figure


def scatter(projection: Projection, palette: Palette = PAGE) -> Figure:
    """Users and items in two dimensions."""
    with plt.rc_context(palette.style):
        figure, axes = plt.subplots(figsize=(4.6, 4.2))
        for points, colour, label in (
            (projection.items, palette.second, "items"),
            (projection.users, palette.accent, "users"),
        ):
            axes.scatter(
                points[:, 0], points[:, 1], s=9, color=colour, alpha=0.6, label=label, linewidths=0
            )
        axes.set_xlim(-1.1, 1.1)
        axes.set_ylim(-1.1, 1.1)
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.legend(frameon=False, loc="upper left", markerscale=2)
        figure.tight_layout()
    return figure


def training_curve(
    rows: list[dict[str, int | float]], unit: str, palette: Palette = PAGE
) -> Figure | None:
    """Validation NDCG@10 and HR@10 by step; None without validations."""
    rows = [row for row in rows if "ndcg@10" in row]
    if not rows:
        return None
    with plt.rc_context(palette.style):
        figure, axes = plt.subplots(figsize=(4.8, 2.6))
        steps = [row["step"] for row in rows]
        for metric, colour in (("hr@10", palette.second), ("ndcg@10", palette.accent)):
            axes.plot(steps, [row[metric] for row in rows], color=colour, label=metric.upper(),
                      marker="o", markersize=3)  # fmt: skip
        axes.set_xlabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("validation")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.legend(frameon=False, loc="lower right")
        figure.tight_layout()
    return figure


def _whiskers(rows: list[dict[str, Any]]) -> list[list[float]]:
    """Lengths of the error bars below and above; at least 0, as rounding may push an end past the value."""
    return [
        [max(0.0, row["value"] - row["low"]) for row in rows],
        [max(0.0, row["high"] - row["value"]) for row in rows],
    ]


def svg(figure: Figure) -> str:
    """Inline SVG with the page's colours; equal figures give equal bytes."""
    stream = io.StringIO()
    with plt.rc_context(PAGE.style):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'class="plot"', text, count=1)


def save_png(figure: Figure, path: Path) -> None:
    with atomic_write(path) as aside:
        figure.savefig(aside, format="png", dpi=144, metadata={"Software": None})
    plt.close(figure)
