"""Figures of a comparison, or a sentence where there is nothing to draw."""

import textwrap
from collections.abc import Iterator

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from helpers.annex import display
from helpers.annex.comparison import CONTROL, REFERENCE, Comparison, Measured
from helpers.display.french import counted, number
from helpers.display.plots import style
from helpers.display.plots.style import COLOURS, GREY, NAMES, NOTE_SIZE, STYLE, handle
from helpers.display.words import NO_ACCURACY

LINE = 36  # characters of a variant's name beside an axis
TRAINED = 0.2  # accuracy over ten classes, twice what guessing gives
MARKERS = "sD^vP"  # of the fastest variants, which alone are named


@rc_context(STYLE)
def figures(
    measured: Measured, comparison: Comparison, accuracies: display.Accuracies, dataset: str
) -> dict[str, Figure | str]:
    """The annex's figures by the name of their file."""
    return {
        "rapports": plot_ratios(comparison, dataset),
        "exactitude_latence": plot_accuracy_latency(measured, comparison, accuracies, dataset),
    }


def plot_ratios(comparison: Comparison, dataset: str) -> Figure | str:
    """Latency of each entry over the reference's: the processes', their mean and its interval.

    All clocks show the order of the first.
    """
    if not comparison.ratios:
        return display.NOT_COMPARED
    first = next(iter(comparison.ratios))
    names = [name for name in display.by_speed(comparison, first) if name != REFERENCE]
    figure, told = style.new_figure(0.3 * len(names) + 1.6), []
    for axis, clock in _axes(figure, comparison, f"latence / latence de {REFERENCE}"):
        axis.axvline(1, color=GREY, linestyle="--", linewidth=0.8)
        for row, name in enumerate(names):
            told.append(_draw_ratio(axis, comparison, clock, name, row))
        axis.margins(x=0.05)
        _logarithmic(axis)
    lines = [textwrap.fill(n.replace("+", "+ "), LINE).replace("+ ", "+") for n in names]
    figure.axes[0].set_yticks(range(len(names)), lines, fontsize=NOTE_SIZE, linespacing=1)
    figure.axes[0].set_ylim(len(names) - 0.4, -0.6)  # the fastest on top
    handles = [
        handle(GREY, "intervalle à 95 % pour toutes les variantes", marker="|", markersize=8),
        handle(GREY, "un processus", marker=".", linestyle="", markersize=4),
        handle(GREY, "témoin", marker="s", linestyle=""),
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles))
    found = "aucune variante plus rapide décelée"
    if best := display.fastest(comparison, first):
        found = f"{number(comparison.ratios[first][best].mean, 3)} pour {best}"
    title = f"Latence rapportée à {REFERENCE} : {found}"
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


@rc_context(STYLE)
def plot_accuracy_latency(
    measured: Measured, comparison: Comparison, accuracies: display.Accuracies, dataset: str
) -> Figure | str:
    """Accuracy against latency (p95, ms) of every variant, by clock; the control is left out.

    Across: the range of the processes' p95. Upwards: the accuracy's interval. Only the fastest
    variants and the reference have a marker of their own: all stand in the tables.
    """
    if not comparison.ratios:
        return display.NOT_COMPARED
    if not (reference := accuracies.get(REFERENCE)):
        return NO_ACCURACY
    if reference.fraction < TRAINED:
        return display.UNTRAINED
    names = display.by_speed(comparison, next(iter(comparison.ratios)))
    names = [name for name in names if name in accuracies]
    markers = dict(zip([n for n in names if n != REFERENCE], MARKERS, strict=False))
    markers[REFERENCE] = "o"
    figure, told = style.new_figure(4.2 + 0.1 * len(markers)), []
    for axis, clock in _axes(figure, comparison, "Latence, p95 (ms)"):
        for name in names:
            if p95 := [s.p95 for s in display.summaries(measured, clock, name)]:
                x, found, colour = np.median(p95), accuracies[name], {"color": COLOURS[clock]}
                y, *ends = (100 * share for share in (found.fraction, found.low, found.high))
                axis.plot([min(p95), max(p95)], [y, y], "|-", markersize=6, **colour)
                axis.plot([x, x], ends, "_-", markersize=6, alpha=0.3, **colour)
                axis.plot([x], [y], markers.get(name, "."), markersize=6, **colour)
                told.append(f"{name} ({NAMES[clock]}) {number(x, 3)} ms, {number(y)} %")
        axis.yaxis.set_major_formatter(style.DecimalComma(useOffset=False))
        axis.margins(0.12, 0.2)
        _logarithmic(axis)
    figure.axes[0].set_ylabel("Exactitude (%)")
    listed = [handle(GREY, n, marker=markers[n], linestyle="") for n in names if n in markers]
    figure.legend(handles=listed, loc="outside lower left", ncols=2)
    title = f"Exactitude et latence de {counted(len(names), 'variante')}"
    caption = f"{title} (barres : étendue sur les processus, intervalle de l'exactitude)"
    return style.finish(figure, caption, f"{title}. {' ; '.join(told)}.", dataset)


def _axes(figure: Figure, comparison: Comparison, label: str) -> Iterator[tuple[Axes, str]]:
    """One axis for each clock that compares."""
    clocks = list(comparison.ratios)
    axes = figure.subplots(1, len(clocks), squeeze=False, sharey=True).ravel()
    for axis, clock in zip(axes, clocks, strict=True):
        axis.set_title(f"Horloge {NAMES[clock]}", fontweight="bold", color=COLOURS[clock])
        axis.set_xlabel(label)
        yield axis, clock


def _logarithmic(axis: Axes) -> None:
    """A logarithmic axis with French numbers: a ratio and its inverse lie equally far from 1."""
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    subs = (1, 2, 5) if high / low > 4 else np.arange(1, 10, 0.5 if high / low > 1.6 else 0.1)
    axis.xaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}".replace(".", ",")))
    axis.xaxis.set_minor_formatter(NullFormatter())
