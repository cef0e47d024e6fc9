"""Figures, one family: French labels with units, one colour per clock, the finding in the title.

Each function draws what it is given and returns a matplotlib Figure whose label is its alt text:
`show` displays it in the notebook, `Session.save_figure` writes it. Nothing is hidden: values that
would flatten a curve are marked at the edge of the frame and counted, a thinned curve says so.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from helpers.bench_latency import LatencyResult
from helpers.display.french import number, percent, percents_apart
from helpers.display.plots.style import (
    BAND,
    COLOURS,
    GREY,
    MOST_NAMED_RUNS,
    MOST_POINTS,
    NAMES,
    STYLE,
    WIDTH,
    DecimalComma,
    clocks_of,
    finish,
    frame_of,
    handle,
    new_figure,
    note_outside,
    p95_ranges,
    show,
    value_range,
)
from helpers.display.plots.time import plot_latency_over_time
from helpers.stats import spread

__all__ = [
    "COLOURS",
    "MOST_POINTS",
    "WIDTH",
    "plot_distribution",
    "plot_images",
    "plot_latency_over_time",
    "plot_p95_runs",
    "show",
]


@rc_context(STYLE)
def plot_images(
    images: np.ndarray, labels: Sequence[int], class_names: Sequence[str], dataset: str
) -> Figure:
    """Images (n, 32, 32, 3) uint8 in rows of ten, each with the name of its class."""
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels: give one label per image")
    columns = min(10, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure(1.1 * rows + 0.4)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, image, label in zip(axes, images, labels, strict=False):  # the last row may be short
        axis.imshow(image, interpolation="nearest")
        axis.set_title(textwrap.fill(class_names[label], 13), loc="center", fontsize=8)
    shown = ", ".join(dict.fromkeys(class_names[label] for label in labels))
    return finish(
        figure,
        "Exemples d'images (32 × 32 pixels)",
        f"Grille de {len(images)} images avec leur classe : {shown}.",
        dataset,
    )


@rc_context(STYLE)
def plot_distribution(results: Sequence[LatencyResult], dataset: str) -> Figure:
    """Empirical distribution of the latencies (ms) of each run, mean and p95 marked, per clock."""
    clocks = clocks_of(results)
    figure = new_figure(4.6)
    axes = figure.subplots(1, len(clocks), squeeze=False, sharey=True).ravel()
    for axis, clock in zip(axes, clocks, strict=True):
        summaries = [getattr(result, clock) for result in results]
        axis.set_xlim(frame_of([s.samples_ms for s in summaries]))
        for index, summary in enumerate(summaries):
            _draw_ecdf(axis, summary, index, len(summaries), clock)
        axis.axhline(95, color=GREY, linestyle=":", linewidth=0.8)
        axis.set_title(f"Horloge {NAMES[clock]}", fontweight="bold", color=COLOURS[clock])
        axis.set_xlabel("Latence (ms)")
        axis.set_ylim(0, 102)
        if len(results) <= MOST_NAMED_RUNS:
            axis.legend(loc="upper left", bbox_to_anchor=(0, -0.15))  # below: it hides no curve
        note_outside(axis, [s.samples_ms for s in summaries], axis.get_xlim())
    axes[0].set_ylabel("Part des itérations\nau plus à cette latence (%)")
    handles = [
        handle(GREY, label, marker=marker, linestyle="")
        for marker, label in (("o", "moyenne"), ("D", "p95"))
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=2)
    means = " ; ".join(
        f"moyenne {NAMES[c]} : {value_range([getattr(r, c).mean for r in results])}" for c in clocks
    )
    return finish(
        figure,
        f"Distribution des latences : {p95_ranges(results, clocks)}",
        f"Fonction de répartition des latences de {len(results)} runs : {means} ; "
        f"{p95_ranges(results, clocks)}.",
        dataset,
    )


@rc_context(STYLE)
def plot_p95_runs(
    p95_by_clock: dict[str, Sequence[float]],
    dataset: str,
    limit: float = 0.10,
    intervals: dict[str, Sequence[tuple[float, float] | None]] | None = None,
) -> Figure:
    """p95 (ms) of each run against a band as high as the criterion allows, per clock.

    The band is `limit` times the mean high and centred between the extreme runs: all of them lie
    inside exactly when (max − min) / mean is at most the limit.

    Parameters
    ----------
    intervals
        Confidence interval (low, high) in ms of each p95, by clock; None where not estimable.
    """
    figure = new_figure(3.6)
    axes = figure.subplots(1, len(p95_by_clock), squeeze=False).ravel()
    findings = []
    for axis, (clock, values) in zip(axes, p95_by_clock.items(), strict=True):
        p95 = np.asarray(values, dtype=float)
        runs = np.arange(1, p95.size + 1)
        mean, middle = p95.mean(), (p95.max() + p95.min()) / 2
        half = limit * mean / 2
        axis.axhspan(middle - half, middle + half, color=BAND, alpha=0.15, linewidth=0)
        axis.axhline(mean, color=GREY, linestyle="--", linewidth=0.8)
        axis.plot(runs, p95, "D", color=COLOURS[clock])
        for run, bounds in zip(runs, (intervals or {}).get(clock, ()), strict=False):
            if bounds is not None:
                axis.plot([run, run], bounds, "_-", color=COLOURS[clock], markersize=9)
        if p95.size <= MOST_NAMED_RUNS:
            for run, value in zip(runs, p95, strict=True):
                axis.annotate(number(value), (run, value), (8, 4), textcoords="offset points")
        axis.margins(y=0.25)
        axis.set_xlim(0.5, p95.size + 0.7)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.yaxis.set_major_formatter(DecimalComma(useOffset=False))
        axis.set_xlabel("Run")
        axis.set_ylabel("p95 (ms)")
        sign = "<" if spread(p95) < limit else "≥"
        found, allowed = percents_apart(spread(p95), limit)
        finding = f"Horloge {NAMES[clock]} : écart {found} {sign} {allowed}"
        axis.set_title(finding, fontweight="bold", color=COLOURS[clock])
        findings.append(f"{finding} (p95 : {value_range(p95)})")
    handles = [
        handle(BAND, f"bande : {percent(limit)} de la moyenne", alpha=0.3, linewidth=8),
        handle(GREY, "moyenne des p95", linestyle="--", linewidth=0.8),
    ]
    if any(bounds is not None for of_clock in (intervals or {}).values() for bounds in of_clock):
        handles.append(handle(GREY, "intervalle de confiance", marker="|", markersize=8))
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles))
    return finish(
        figure,
        "p95 des runs : (max − min) / moyenne",
        f"p95 de chaque run : {' ; '.join(findings)}.",
        dataset,
    )


def _draw_ecdf(axis: Axes, summary, index: int, runs: int, clock: str) -> None:
    """One run's distribution function, drawn at no more than MOST_POINTS of its ranks."""
    ordered = np.sort(summary.samples_ms)
    ranks = np.unique(np.linspace(1, summary.n, min(summary.n, MOST_POINTS)).astype(int))
    x = np.concatenate(([ordered[0]], ordered[ranks - 1]))
    y = 100 * np.concatenate(([0], ranks)) / summary.n
    shade = 0.0 if runs == 1 else 0.55 * index / (runs - 1)  # towards white
    colour = np.asarray(to_rgb(COLOURS[clock])) * (1 - shade) + shade
    label = f"run {index + 1} : moy. {number(summary.mean)} · p95 {number(summary.p95)} ms"
    axis.plot(
        *(x, y, ("-", "--", "-.", ":")[index % 4]),
        color=colour,
        drawstyle="steps-post",
        label=label if runs <= MOST_NAMED_RUNS else "_",
    )
    for value, marker in ((summary.mean, "o"), (summary.p95, "D")):
        share = 100 * np.searchsorted(ordered, value, side="right") / summary.n
        right = axis.get_xlim()[1]
        axis.plot(min(value, right), share, marker if value <= right else ">", color=colour, ms=5)
    axis.xaxis.set_major_formatter(DecimalComma(useOffset=False))
