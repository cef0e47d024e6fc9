"""The figure of a comparison, or a sentence where there is nothing to draw."""

import textwrap

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.annex import display
from helpers.annex.comparison import CONTROL, REFERENCE, Comparison
from helpers.display.french import number
from helpers.display.plots import style
from helpers.display.plots.style import COLOURS, GREY, NAMES, NOTE_SIZE, STYLE, handle


@rc_context(STYLE)
def plot_ratios(comparison: Comparison, dataset: str) -> Figure | str:
    """Latency of each entry over the reference's: the processes', their mean and its interval.

    All clocks show the order of the first.
    """
    if not comparison.ratios:
        return display.NOT_COMPARED
    first = next(iter(comparison.ratios))
    names = [name for name in display.by_speed(comparison, first) if name != REFERENCE]
    label, height, told = f"latence / latence de {REFERENCE}", 0.3 * len(names) + 1.6, []
    figure, axes = style.clock_axes(comparison.ratios, "x", label, height)
    for clock, axis in axes.items():
        axis.axvline(1, color=GREY, linestyle="--", linewidth=0.8)
        for row, name in enumerate(names):
            told.append(_draw_ratio(axis, comparison, clock, name, row))
        axis.set_yticks(range(len(names)), [])
        axis.set_ylim(len(names) - 0.4, -0.6)  # the fastest on top
        axis.set_xlim(left=0)
    lines = [textwrap.fill(n.replace("+", "+ "), 36).replace("+ ", "+") for n in names]
    axes[first].set_yticks(range(len(names)), lines, fontsize=NOTE_SIZE, linespacing=1)
    handles = [
        handle(GREY, "intervalle à 95 % pour toutes les variantes", marker="|", markersize=8),
        handle(GREY, "un processus", marker=".", linestyle="", markersize=4),
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles))
    title = f"Latence rapportée à celle de {REFERENCE}, qui vaut 1"
    return style.finish(figure, title, f"{title}. {' ; '.join(told)}.", dataset)


def _draw_ratio(axis: Axes, comparison: Comparison, clock: str, name: str, row: int) -> str:
    """Draw one entry on one clock; returns in words what is to be seen."""
    verdict = f"{name} ({NAMES[clock]}) : {display.verdict(comparison, clock, name)}"
    ratio = comparison.ratios[clock].get(name)
    if ratio is None:
        axis.annotate(display.UNMEASURED, (1, row), color=GREY, va="center", ha="center")
        return verdict
    colour, marker = (GREY, "s") if name == CONTROL else (COLOURS[clock], "o")
    axis.plot(ratio.values, [row + 0.3] * len(ratio.values), ".", color=colour, markersize=3)
    axis.plot([ratio.low, ratio.high], [row, row], "|-", color=colour, markersize=7)
    axis.plot([ratio.mean], [row], marker, color=colour, markersize=5)
    shown, beside = number(ratio.mean, 3), {"xycoords": ("axes fraction", "data")}
    axis.annotate(shown, (1.02, row), va="center", fontsize=NOTE_SIZE, **beside)
    return f"{verdict}, {shown} ({display.between(ratio)})"
