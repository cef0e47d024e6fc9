"""Figures of a comparison: ratios sorted by speed, and accuracy against latency, on every clock."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from helpers.annex.comparison import Comparison, Interleaved
from helpers.annex.display import Accuracies, by_speed, fastest, verdict_of
from helpers.display.french import counted, number, percent
from helpers.display.plots.style import (
    BAND,
    COLOURS,
    GREY,
    NAMES,
    NOTE_SIZE,
    STYLE,
    DecimalComma,
    finish,
    handle,
    new_figure,
)

LINE = 36  # characters of a variant's name beside an axis
NUMBERED = 5  # variants that have a number beside their point, the fastest
TRAINED = 0.2  # accuracy over ten classes, twice what guessing gives
HEIGHTS = (0.95, 0.90, 0.85, 0.80, 0.75, 0.95)  # of the numbers, as shares of the axis


@rc_context(STYLE)
def plot_ratios(comparison: Comparison, dataset: str) -> Figure:
    """Latency of each entry over the reference's, with its simultaneous interval, by clock.

    All clocks show the order of the first; the band is what copies of the reference may differ by.

    Raises
    ------
    ValueError
        Nothing was compared on any clock.
    """
    clocks = _clocks(comparison)
    names = [n for n in by_speed(comparison, clocks[0]) if n != comparison.reference]
    figure = new_figure(0.3 * len(names) + 1.6)
    axes = figure.subplots(1, len(clocks), squeeze=False, sharey=True).ravel()
    for axis, clock in zip(axes, clocks, strict=True):
        _draw_ratios(axis, comparison, clock, names)
    axes[0].set_yticks(range(len(names)), map(_in_lines, names), fontsize=NOTE_SIZE, linespacing=1)
    axes[0].set_ylim(len(names) - 0.4, -0.6)  # the fastest on top
    handles = [
        handle(GREY, "intervalle simultané à 95 %", marker="|", markersize=8),
        handle(GREY, "témoin", marker="s", linestyle=""),
    ]
    if comparison.placement:
        label = "écart possible entre copies du même modèle"
        handles.append(handle(BAND, label, alpha=0.3, linewidth=8))
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles))
    first = fastest(comparison, clocks[0])
    found = "aucune variante plus rapide décelée"
    if first is not None:
        found = f"{number(comparison.ratios[clocks[0]][first].ratio, 3)} pour {first}"
    title = f"Latence rapportée à {comparison.reference} : {found}"
    told = (
        f"horloge {NAMES[clock]} : "
        + ", ".join(
            f"{name} {number(ratio.ratio, 3)} ({number(ratio.low, 3)} à {number(ratio.high, 3)}), "
            f"{verdict_of(comparison, clock, name)}"
            for name, ratio in comparison.ratios[clock].items()
        )
        for clock in clocks
    )
    return finish(figure, title, f"{title}. {' ; '.join(told)}.", dataset)


def _in_lines(name: str) -> str:
    """Break a long name after its "+"."""
    lines = [""]
    for part in name.replace("+", "+\0").split("\0"):
        if lines[-1] and len(lines[-1] + part) > LINE:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _draw_ratios(axis: Axes, comparison: Comparison, clock: str, names: Sequence[str]) -> None:
    if clock in comparison.placement:
        reach = 1 + comparison.placement[clock]
        axis.axvspan(1 / reach, reach, color=BAND, alpha=0.15, linewidth=0)
    axis.axvline(1, color=GREY, linestyle="--", linewidth=0.8)
    for row, name in enumerate(names):
        ratio = comparison.ratios[clock].get(name)
        if ratio is None:
            axis.annotate("non mesuré", (1, row), color=GREY, va="center", ha="center")
            continue
        colour, marker = (GREY, "s") if name in comparison.controls else (COLOURS[clock], "o")
        axis.plot([ratio.low, ratio.high], [row, row], "|-", color=colour, markersize=7)
        axis.plot([ratio.ratio], [row], marker, color=colour, markersize=5)
        axis.annotate(  # in a column beside the axis: on no spine, and not cut
            number(ratio.ratio, 3),
            (1.02, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=NOTE_SIZE,
        )
    axis.set_title(f"Horloge {NAMES[clock]}", fontweight="bold", color=COLOURS[clock])
    axis.set_xlabel(f"latence / latence de {comparison.reference}")
    axis.margins(x=0.05)
    _logarithmic(axis)


def trained(accuracies: Accuracies, reference: str = "fp32") -> bool:
    """Does the reference tell the classes apart? With random weights accuracies mean nothing."""
    return reference in accuracies and accuracies[reference].fraction >= TRAINED


@rc_context(STYLE)
def plot_accuracy_latency(
    measured: Interleaved, comparison: Comparison, accuracies: Accuracies, dataset: str
) -> Figure:
    """Accuracy against latency (p95, ms) of every variant, by clock; controls are left out.

    Across: the range of the runs' p95. Upwards: the accuracy's interval. Only the fastest variants
    and the reference are named: all stand in the tables.

    Raises
    ------
    ValueError
        Nothing was compared on any clock, or no variant has an accuracy.
    """
    clocks = _clocks(comparison)
    names = [n for n in by_speed(comparison, clocks[0]) if n in accuracies]
    if not names:
        raise ValueError(f"no accuracy for {', '.join(measured.runs)}: pass one by variant")
    quick = [n for n in names if n != comparison.reference][:NUMBERED]
    named = [n for n in names if n in (*quick, comparison.reference)]
    figure = new_figure(4.2 + 0.1 * len(named))
    axes = figure.subplots(1, len(clocks), squeeze=False, sharey=True).ravel()
    told = []
    for axis, clock in zip(axes, clocks, strict=True):
        levels = {name: _p95(measured, clock, name) for name in names}
        points = {
            n: _draw_point(axis, clock, p95, accuracies[n]) for n, p95 in levels.items() if p95
        }
        axis.set_title(f"Horloge {NAMES[clock]}", fontweight="bold", color=COLOURS[clock])
        axis.set_xlabel("Latence, p95 (ms)")
        axis.yaxis.set_major_formatter(DecimalComma(useOffset=False))
        axis.margins(0.12, 0.7)  # room for the numbers
        _logarithmic(axis)
        _number(axis, {str(k): points[n] for k, n in enumerate(named, 1) if n in points})
        told.append(
            f"horloge {NAMES[clock]} : "
            + ", ".join(
                f"{name} {number(x, 3)} ms, {percent(y / 100, 4)}"
                for name, (x, y) in points.items()
            )
        )
    axes[0].set_ylabel("Exactitude (%)")
    listed = [handle("none", f"{k}  {name}") for k, name in enumerate(named, 1)]
    figure.legend(handles=listed, loc="outside lower left", ncols=2, handlelength=0)
    title = f"Exactitude et latence de {counted(len(names), 'variante')}"
    caption = f"{title} (barres : étendue des runs, intervalle de l'exactitude)"
    return finish(figure, caption, f"{title}. {' ; '.join(told)}.", dataset)


def _draw_point(axis: Axes, clock: str, p95: Sequence[float], accuracy) -> tuple[float, float]:
    """Draw a variant and both its spans; returns where (ms, %)."""
    bounds = accuracy.fraction, accuracy.low, accuracy.high
    x, (y, low, high) = float(np.median(p95)), (100 * value for value in bounds)
    axis.plot([min(p95), max(p95)], [y, y], "|-", color=COLOURS[clock], markersize=6)
    axis.plot([x, x], [low, high], "_-", color=COLOURS[clock], markersize=6, alpha=0.5)
    axis.plot([x], [y], "o", color=COLOURS[clock], markersize=5)
    return x, y


def _number(axis: Axes, points: dict[str, tuple[float, float]]) -> None:
    """Write each number above its point's bar, neighbours at different heights."""
    in_order = sorted(points.items(), key=lambda item: item[1])
    for (text, (x, _)), height in zip(in_order, HEIGHTS, strict=False):
        place = {"xycoords": ("data", "axes fraction"), "ha": "center", "fontsize": NOTE_SIZE + 1}
        axis.annotate(text, (x, height), **place)


def _p95(measured: Interleaved, clock: str, name: str) -> list[float]:
    """Of each run, where this clock has read all."""
    found = [getattr(run, clock) for run in measured.runs.get(name, ())]
    return [] if None in found else [summary.p95 for summary in found]


def _clocks(comparison: Comparison) -> list[str]:
    if not comparison.ratios:
        reasons = " ; ".join(f"{clock}: {why}" for clock, why in comparison.refused.items())
        raise ValueError(f"nothing was compared ({reasons}): there is nothing to draw")
    return list(comparison.ratios)


def _logarithmic(axis: Axes) -> None:
    """A logarithmic axis with French numbers: a ratio and its inverse lie equally far from 1."""
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    subs = (1, 2, 5) if high / low > 4 else np.arange(1, 10, 0.5 if high / low > 1.6 else 0.1)
    axis.xaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}".replace(".", ",")))
    axis.xaxis.set_minor_formatter(NullFormatter())
