"""Pictures of a comparison, in the report's style: every system as it was asked, and with its order lost."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llmsrec.comparison.results import Comparison
from llmsrec.comparison.tables import chosen
from llmsrec.comparison.tidy import CHANCE, Row
from llmsrec.report.plots import PAGE, Palette

Bars = dict[tuple[str, str], Row]


def quality(found: Comparison, protocol: str, metric: str, palette: Palette = PAGE) -> Figure:
    """A dot for the history as it was and a hollow one for the shuffled history, each with its interval."""
    wanted = {"protocol": protocol, "metric": metric, "train": "original"}
    true: Bars = chosen(found, **wanted, test="original")
    lost: Bars = chosen(found, **wanted, test="shuffled")
    chance = next((row.value for (name, _), row in true.items() if name == CHANCE), None)
    shown = [key for key in true if key[0] != CHANCE]
    with plt.rc_context(palette.style):
        figure, axes = plt.subplots(figsize=(5.0, 0.38 * len(shown) + 1.2))
        for place, key in enumerate(shown):
            leads = key[0] == found.about["reference"]
            colour = palette.accent if leads else palette.second
            _dot(axes, true[key], place - 0.13 * (key in lost), colour, filled=True)
            if key in lost:
                _dot(axes, lost[key], place + 0.17, colour, filled=False)
        _legend(axes, palette, shuffled=bool(lost))
        if chance is not None:
            axes.axvline(chance, color=palette.ink, linewidth=0.9, linestyle=(0, (2, 3)))
            axes.annotate("chance", (chance, 0), (4, 2), xycoords=("data", "axes fraction"),
                          textcoords="offset points", va="bottom", fontsize=9)  # fmt: skip
        axes.set_yticks(range(len(shown)), [_label(key, shown) for key in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.margins(x=0.06)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(metric.upper())
        figure.tight_layout()
    return figure


def _dot(axes: Axes, row: Row, place: float, colour: str, *, filled: bool) -> None:
    reach = [[max(0.0, row.value - row.low)], [max(0.0, row.high - row.value)]]
    axes.errorbar(
        [row.value], [place], xerr=reach, fmt="o", color=colour, ecolor=colour, markersize=6, elinewidth=1.4,
        markerfacecolor=colour if filled else "none", markeredgewidth=1.6,
    )  # fmt: skip


def _legend(axes: Axes, palette: Palette, *, shuffled: bool) -> None:
    """Told in ink: colour says which is the reference."""
    for label, face in (("history as it was", palette.ink), ("history shuffled", "none"))[
        : 1 + shuffled
    ]:
        axes.plot([], [], "o", color=palette.ink, markerfacecolor=face, markersize=6, label=label)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _label(key: tuple[str, str], shown: list[tuple[str, str]]) -> str:
    """A system that stands in both modes is told apart by how it answers."""
    both = [other for other in shown if other[0] == key[0]]
    return f"{key[0]}, writes" if len(both) > 1 and key[1] == "generation" else key[0]
