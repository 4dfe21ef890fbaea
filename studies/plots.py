"""The pictures of a study in the report's style: every system with original and with shuffled histories."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llmsrec.report.plots import PAGE, Palette
from studies.table import CHANCE, Row, StudyResult


def quality(result: StudyResult, protocol: str, metric: str, palette: Palette = PAGE) -> Figure:
    """A filled dot for original and a hollow one for shuffled histories, each with its interval."""
    wanted = {"protocol": protocol, "metric": metric, "train": "original"}
    original = result.values(**wanted, test="original")
    shuffled = result.values(**wanted, test="shuffled")
    shown = [system for system in original if system != CHANCE]
    with plt.rc_context(palette.style):
        figure, axes = plt.subplots(figsize=(5.0, 0.38 * len(shown) + 1.2))
        for place, system in enumerate(shown):
            leads = system == result.about["reference"]
            colour = palette.accent if leads else palette.second
            _dot(axes, original[system], place - 0.13 * (system in shuffled), colour, filled=True)
            if system in shuffled:
                _dot(axes, shuffled[system], place + 0.17, colour, filled=False)
        _legend(axes, palette, shuffled=bool(shuffled))
        if CHANCE in original:
            chance = original[CHANCE].value
            axes.axvline(chance, color=palette.ink, linewidth=0.9, linestyle=(0, (2, 3)))
            axes.annotate("chance", (chance, 0), (4, 2), xycoords=("data", "axes fraction"),
                          textcoords="offset points", va="bottom", fontsize=9)  # fmt: skip
        axes.set_yticks(range(len(shown)), shown)
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
    """In the colour of the text: colour marks the reference."""
    for label, face in (("original history", palette.ink), ("shuffled history", "none"))[
        : 1 + shuffled
    ]:
        axes.plot([], [], "o", color=palette.ink, markerfacecolor=face, markersize=6, label=label)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
