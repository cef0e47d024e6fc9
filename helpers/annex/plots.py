"""The figure of a comparison, or a sentence where there is nothing to draw."""

import textwrap

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from helpers.annex import display
from helpers.annex.comparison import CLOCKS, CONTROL, REFERENCE, Comparison
from helpers.annex.pauses import Paused
from helpers.display.colours import BAND
from helpers.display.french import number, percent
from helpers.display.plots import style
from helpers.display.plots.style import COLOURS, GREY, NAMES, NOTE_SIZE, STYLE, handle

MARKERS = "osD^vP"  # of variants, in turn
RATIO = f"p50 / p50 de {REFERENCE}, moyenne des tours"


@rc_context(STYLE)
def plot_ratios(comparison: Comparison, dataset: str) -> Figure | str:
    """Latency of each entry over the reference's: the processes', their mean and its interval.

    All clocks show the order of the first.
    """
    if not comparison.ratios:
        return display.NOT_COMPARED
    first = next(iter(comparison.ratios))
    names = [name for name in display.by_speed(comparison, first) if name != REFERENCE]
    told, height = [], 0.3 * len(names) + 1.6
    figure, axes = style.clock_axes(comparison.ratios, "x", RATIO, height)
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


@rc_context(STYLE)
def plot_accuracy(comparison: Comparison, scores: display.Accuracies, dataset: str) -> Figure | str:
    """Accuracy over the ratio of latencies; the fastest five have numbers, fp32 its interval."""
    reference = scores.get(REFERENCE)
    if not comparison.ratios or not reference or reference.low < 2 / reference.logits.shape[1]:
        return display.NOTHING_LEARNT
    order = [
        n for n in display.by_speed(comparison, next(iter(comparison.ratios))) if scores.get(n)
    ]
    numbers = {name: n for n, name in enumerate(order[:5], start=1)}
    figure, axes = style.clock_axes(comparison.ratios, "x", RATIO, 4.2)
    for clock, axis in axes.items():
        ratios = {n: r.mean for n, r in comparison.ratios[clock].items()} | {REFERENCE: 1.0}
        axis.axhspan(100 * reference.low, 100 * reference.high, color=BAND, alpha=0.15)
        for name in (name for name in order if name in ratios):
            at, n = (ratios[name], 100 * scores[name].fraction), numbers.get(name, "")
            axis.plot(*at, "s" if name == REFERENCE else "o", color=COLOURS[clock], markersize=4)
            axis.annotate(n, at, (0, 8 * (n or 0)), textcoords="offset points")
        axis.set_ylabel("Exactitude (%)")
        if min(ratios.values()) < 0.4:  # else a logarithmic axis has a tick or two
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(lambda ratio, _: number(ratio, 1))
        axis.yaxis.set_major_formatter(style.DecimalComma(useOffset=False))
        axis.minorticks_off()
    handles = [handle(GREY, f"{n} : {name}", linestyle="") for name, n in numbers.items()]
    handles += [handle(BAND, f"{REFERENCE} (carré), Wilson à 95 %", linewidth=5, alpha=0.3)]
    figure.legend(handles=handles, loc="outside lower left", ncols=1, handlelength=1.5)
    alt = " ; ".join(f"{name} {percent(scores[name].fraction, 4)}" for name in order)
    return style.finish(figure, "Exactitude et latence", f"De la plus rapide : {alt}.", dataset)


@rc_context(STYLE)
def plot_pauses(paused: Paused, dataset: str) -> Figure | str:
    """p50 and, where it is estimable, p95 (ms) after each pause, by clock; grey: the processes."""
    pauses, told, any_p95 = paused.pauses_ms, {}, False
    markers = dict(zip(paused.names, 4 * MARKERS, strict=False))
    p50 = {c: {n: [paused.level(n, p, c, 0.5) for p in pauses] for n in markers} for c in CLOCKS}
    p50 = {c: {n: levels for n, levels in of.items() if all(levels)} for c, of in p50.items()}
    if not any(p50.values()):
        return display.UNMEASURED
    figure, axes = style.clock_axes([c for c in CLOCKS if p50[c]], "y", "Latence (ms)", 3.8)
    for clock, axis in axes.items():
        for nth, (name, medians) in enumerate(p50[clock].items()):
            p95 = [paused.level(name, pause, clock, 0.95) for pause in pauses]
            any_p95 |= any(p95)
            x = np.arange(len(pauses)) + 0.2 * ((nth + 0.5) / len(markers) - 0.5)
            for levels, filled, line in ((medians, "full", "-"), (p95, "none", ":")):
                look = {"color": COLOURS[clock], "fillstyle": filled, "markersize": 5}
                middles = [np.median(values or np.nan) for values in levels]
                axis.plot(x, middles, line, marker=markers[name], **look)
                for at, values in zip(x, levels, strict=True):
                    axis.plot([at - 0.05] * len(values), values, ".", color=GREY, markersize=3)
                    ends = display.process_interval(values)
                    axis.plot([at] * len(ends), ends, "_-", **look)
            rise = np.median(medians[-1]) / np.median(medians[0])
            told.setdefault(clock, []).append(f"{name} × {number(float(rise), 3)}")
        axis.set_xticks(range(len(pauses)), [display.plain(pause) for pause in pauses])
        axis.set_xlabel("Pause avant le passage (ms)")
        axis.set_ylim(bottom=0)
    handles = [handle(GREY, name, marker=markers[name]) for name in p50["host"]]
    handles += [handle(GREY, "un processus", marker=".", linestyle="", markersize=4)]
    handles += [handle(GREY, "p95", linestyle=":", marker="o", fillstyle="none")] * any_p95
    figure.legend(handles=handles, loc="outside lower left", ncols=4)
    title = f"p50 de {display.plain(pauses[0])} à {display.plain(pauses[-1])} ms de pause : "
    alt = " ; ".join(f"horloge {NAMES[clock]} {', '.join(rises)}" for clock, rises in told.items())
    return style.finish(figure, f"{title}hôte {', '.join(told['host'][:3])}", title + alt, dataset)
