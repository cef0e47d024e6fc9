"""Figures of a comparison: ratios sorted by speed, and accuracy against latency, on every clock."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from helpers.annex.comparison import Comparison, Interleaved
from helpers.annex.comparison.tables import Accuracies, by_speed, fastest, verdict_of
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
CLOSE = 0.035  # of an axis: numbers nearer than that would overlap
LIFTS = (5, -11, 16, -22, 27, -33, 38, -44)  # of a number above or below its point, in points


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
    axes[0].set_ylim(len(names) - 0.5, -0.9)  # the fastest on top, room for its number
    handles = [
        handle(GREY, "intervalle simultané à 95 %", marker="|", markersize=8),
        handle(GREY, "témoin", marker="s", linestyle=""),
    ]
    if comparison.placement:
        label = "écart possible entre copies du même modèle"
        handles.append(handle(BAND, label, alpha=0.3, linewidth=8))
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles))
    title = f"Latence rapportée à {comparison.reference} : {_finding(comparison, clocks[0])}"
    told = (
        f"horloge {NAMES[clock]} : "
        + ", ".join(
            f"{name} {number(ratio.ratio)} ({number(ratio.low)} à {number(ratio.high)}), "
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


def _finding(comparison: Comparison, clock: str) -> str:
    name = fastest(comparison, clock)
    if name is None:
        return "aucune variante plus rapide décelée"
    return f"{number(comparison.ratios[clock][name].ratio, 3)} pour {name}"


def _draw_ratios(axis: Axes, comparison: Comparison, clock: str, names: Sequence[str]) -> None:
    own = (comparison.control, *comparison.copies)
    if clock in comparison.placement:
        reach = 1 + comparison.placement[clock]
        axis.axvspan(1 / reach, reach, color=BAND, alpha=0.15, linewidth=0)
    axis.axvline(1, color=GREY, linestyle="--", linewidth=0.8)
    for row, name in enumerate(names):
        ratio = comparison.ratios[clock].get(name)
        if ratio is None:
            axis.annotate("non mesuré", (1, row), color=GREY, va="center", ha="center")
            continue
        colour, marker = (GREY, "s") if name in own else (COLOURS[clock], "o")
        axis.plot([ratio.low, ratio.high], [row, row], "|-", color=colour, markersize=7)
        axis.plot([ratio.ratio], [row], marker, color=colour, markersize=5)
        note = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center"}
        axis.annotate(number(ratio.ratio), (ratio.ratio, row), fontsize=NOTE_SIZE, **note)
    axis.set_title(f"Horloge {NAMES[clock]}", fontweight="bold", color=COLOURS[clock])
    axis.set_xlabel(f"latence / latence de {comparison.reference}")
    axis.margins(x=0.1)  # room for the numbers
    _logarithmic(axis)


@rc_context(STYLE)
def plot_accuracy_latency(
    measured: Interleaved, comparison: Comparison, accuracies: Accuracies, dataset: str
) -> Figure:
    """Accuracy against latency (p50, ms) of every variant, by clock; controls are left out.

    Across: the range of the runs' medians. Upwards: the accuracy's interval. The numbers are those
    of the legend, the fastest first.

    Raises
    ------
    ValueError
        Nothing was compared on any clock, or no variant has an accuracy.
    """
    clocks = _clocks(comparison)
    own = (comparison.control, *comparison.copies)
    names = [n for n in by_speed(comparison, clocks[0]) if n in accuracies and n not in own]
    if not names:
        raise ValueError(f"no accuracy for {', '.join(measured.runs)}: pass one by variant")
    figure = new_figure(4.2 + 0.2 * -(-len(names) // 3))
    axes = figure.subplots(1, len(clocks), squeeze=False, sharey=True).ravel()
    for axis, clock in zip(axes, clocks, strict=True):
        points = {
            index: _draw_point(axis, measured, clock, name, accuracies[name])
            for index, name in enumerate(names, start=1)
        }
        axis.set_title(f"Horloge {NAMES[clock]}", fontweight="bold", color=COLOURS[clock])
        axis.set_xlabel("Latence, p50 (ms)")
        axis.yaxis.set_major_formatter(DecimalComma(useOffset=False))
        axis.margins(0.12)
        _logarithmic(axis)
        _number(axis, {index: point for index, point in points.items() if point})
    axes[0].set_ylabel("Exactitude (%)")
    listed = [handle("none", f"{index}  {name}") for index, name in enumerate(names, start=1)]
    figure.legend(handles=listed, loc="outside lower center", ncols=3, handlelength=0)
    title = f"Exactitude et latence de {counted(len(names), 'variante')}"
    told = (
        f"{name} : exactitude {percent(accuracies[name].fraction, 4)}, p50 "
        + ", ".join(f"{NAMES[c]} {_median(measured, c, name)}" for c in clocks)
        for name in names
    )
    caption = f"{title} (barres : étendue des runs, intervalle de l'exactitude)"
    return finish(figure, caption, f"{title}. {' ; '.join(told)}.", dataset)


def _draw_point(axis: Axes, measured: Interleaved, clock: str, name: str, accuracy):
    """Draw a variant and both its spans; returns where (ms, %), None if this clock has it not."""
    medians = _medians(measured, clock, name)
    if not medians:
        return None
    bounds = accuracy.fraction, accuracy.low, accuracy.high
    x, (y, low, high) = float(np.median(medians)), (100 * value for value in bounds)
    axis.plot([min(medians), max(medians)], [y, y], "|-", color=COLOURS[clock], markersize=6)
    axis.plot([x, x], [low, high], "_-", color=COLOURS[clock], markersize=6)
    axis.plot([x], [y], "o", color=COLOURS[clock], markersize=5)
    return x, y


def _number(axis: Axes, points: dict[int, tuple[float, float]]) -> None:
    """Write each point's number, further up or down where its neighbours' are in the way."""
    span = np.log(axis.get_xlim()[1] / axis.get_xlim()[0])
    last = dict.fromkeys(LIFTS, -np.inf)  # where each height was used last, along the axis
    for index, (x, y) in sorted(points.items(), key=lambda item: item[1]):
        along = np.log(x) / span
        free = (lift for lift in LIFTS if along - last[lift] >= CLOSE)
        lift = next(free, min(last, key=last.get))
        last[lift] = along
        place = {"xytext": (4, lift), "textcoords": "offset points"}
        axis.annotate(str(index), (x, y), fontsize=NOTE_SIZE + 1, **place)


def _medians(measured: Interleaved, clock: str, name: str) -> list[float]:
    return [getattr(r, clock).p50 for r in measured.runs[name] if getattr(r, clock) is not None]


def _median(measured: Interleaved, clock: str, name: str) -> str:
    medians = _medians(measured, clock, name)
    return f"{number(float(np.median(medians)))} ms" if medians else "non mesuré"


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
