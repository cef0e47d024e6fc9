"""Figures, one family: French labels with units, one colour per clock, the finding in the title.

Each function draws what it is given and returns a matplotlib Figure whose label is its alt text:
`show` displays it in the notebook, `Session.save_figure` writes it. Values that would flatten a
curve are marked at the edge of the frame and counted.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.bench_latency import LatencyResult
from helpers.display.french import number, percent, percents_apart
from helpers.display.plots import style
from helpers.display.plots.style import COLOURS, GREY, NAMES, STYLE, show
from helpers.display.plots.time import plot_latency_over_time
from helpers.stats import LatencySummary, spread

__all__ = [
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
    figure = style.new_figure(1.1 * rows + 0.4)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, image, label in zip(axes, images, labels, strict=False):  # the last row may be short
        axis.imshow(image, interpolation="nearest")
        axis.set_title(textwrap.fill(class_names[label], 13), loc="center", fontsize=8)
    shown = ", ".join(dict.fromkeys(class_names[label] for label in labels))
    return style.finish(
        figure,
        "Exemples d'images (32 × 32 pixels)",
        f"Grille de {len(images)} images avec leur classe : {shown}.",
        dataset,
    )


@rc_context(STYLE)
def plot_distribution(results: Sequence[LatencyResult], dataset: str) -> Figure:
    """Empirical distribution of the latencies (ms) of each run, mean and p95 marked, per clock.

    Of many runs: the median run's distribution, and the range of all.
    """
    by_clock = style.summaries_by_clock(results)
    figure = style.new_figure(4.6)
    axes = figure.subplots(1, len(by_clock), squeeze=False, sharey=True).ravel()
    for axis, (clock, summaries) in zip(axes, by_clock.items(), strict=True):
        samples = [summary.samples_ms for summary in summaries.values()]
        axis.set_xlim(style.frame_of(samples))
        if len(results) <= style.MOST_CURVES:
            for run, summary in summaries.items():
                _draw_ecdf(axis, summary, run, len(results), clock)
        else:
            _draw_envelope(axis, samples, clock)
        axis.axhline(95, color=GREY, linestyle=":", linewidth=0.8)
        axis.set_title(f"Horloge {NAMES[clock]}", fontweight="bold", color=COLOURS[clock])
        note = style.outside(samples, axis.get_xlim())
        axis.set_title(note, loc="right", fontsize=style.NOTE_SIZE, color=GREY)
        axis.set_xlabel("Latence (ms)")
        axis.set_ylim(0, 102)
        style.french_axis(axis, "x")
        if not style.MOST_NAMED_RUNS < len(results) <= style.MOST_CURVES:
            axis.legend(loc="upper left", bbox_to_anchor=(0, -0.15))  # below: it hides no curve
    axes[0].set_ylabel("Part des itérations\nau plus à cette latence (%)")
    if len(results) <= style.MOST_CURVES:
        marks = [
            style.handle(GREY, "moyenne", marker="o", ls=""),
            style.handle(GREY, "p95", marker="D", ls=""),
        ]
        figure.legend(handles=marks, loc="outside lower right", ncols=2)
    means = " ; ".join(
        f"moyenne {NAMES[clock]} : {style.value_range([s.mean for s in summaries.values()])}"
        for clock, summaries in by_clock.items()
    )
    return style.finish(
        figure,
        f"Distribution des latences : {style.p95_ranges(by_clock)}",
        f"Fonction de répartition des latences de {len(results)} runs : {means} ; "
        f"{style.p95_ranges(by_clock)}.",
        dataset,
    )


def _draw_ecdf(axis: Axes, summary: LatencySummary, run: int, runs: int, clock: str) -> None:
    ordered = np.sort(summary.samples_ms)
    x = np.concatenate((ordered[:1], ordered))
    label = f"run {run} : moy. {number(summary.mean)} · p95 {number(summary.p95)} ms"
    axis.plot(
        *(x, np.linspace(0, 100, x.size), ("-", "--", "-.", ":")[(run - 1) % 4]),
        color=COLOURS[clock],
        drawstyle="steps-post",
        label=label if runs <= style.MOST_NAMED_RUNS else "_",
    )
    for value, marker in ((summary.mean, "o"), (summary.p95, "D")):
        share = 100 * np.searchsorted(ordered, value, side="right") / summary.n
        right = axis.get_xlim()[1]
        shown = (min(value, right), share, marker if value <= right else ">")
        axis.plot(*shown, color=COLOURS[clock], markersize=5)


def _draw_envelope(axis: Axes, samples: Sequence[np.ndarray], clock: str) -> None:
    levels = np.linspace(0, 1, 201)
    quantiles = np.stack([np.quantile(values, levels) for values in samples])
    extremes = quantiles.min(0), quantiles.max(0)
    shade = {"color": COLOURS[clock], "alpha": 0.25, "linewidth": 0}
    axis.fill_betweenx(100 * levels, *extremes, label=f"étendue des {len(samples)} runs", **shade)
    middle = np.median(quantiles, axis=0)
    axis.plot(middle, 100 * levels, color=COLOURS[clock], label="médiane des runs")


@rc_context(STYLE)
def plot_p95_runs(
    p95_by_clock: dict[str, Sequence[float]],
    dataset: str,
    limit: float = 0.10,
    intervals: dict[str, Sequence[tuple[float, float] | None]] | None = None,
) -> Figure:
    """p95 (ms) of each run against a window as high as the criterion allows, per clock.

    The window is `limit` times the mean high and centred between the extreme runs: all of them lie
    inside exactly when (max − min) / mean is at most the limit.

    Parameters
    ----------
    intervals
        Confidence interval (low, high) in ms of each p95, by clock; None where not estimable.
    """
    figure = style.new_figure(3.6)
    axes = figure.subplots(1, len(p95_by_clock), squeeze=False).ravel()
    findings = []
    for axis, (clock, values) in zip(axes, p95_by_clock.items(), strict=True):
        p95 = np.asarray(values, dtype=float)
        _draw_p95(axis, p95, clock, limit, (intervals or {}).get(clock, ()))
        sign = "<" if spread(p95) < limit else "≥"
        found, allowed = percents_apart(spread(p95), limit)
        finding = f"Horloge {NAMES[clock]} : écart {found} {sign} {allowed}"
        axis.set_title(finding, fontweight="bold", color=COLOURS[clock])
        findings.append(f"{finding} (p95 : {style.value_range(p95)})")
    window = f"fenêtre permise : {percent(limit)} de la moyenne"
    handles = [style.handle(style.BAND, window, alpha=0.3, linewidth=8)]
    if any(bounds is not None for of_clock in (intervals or {}).values() for bounds in of_clock):
        handles.append(
            style.handle(GREY, "intervalle de confiance à 95 %", marker="|", markersize=8)
        )
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles))
    return style.finish(
        figure,
        "Le p95 de chaque run tient-il dans la fenêtre permise ?",
        f"p95 de chaque run : {' ; '.join(findings)}.",
        dataset,
    )


def _draw_p95(axis: Axes, p95: np.ndarray, clock: str, limit: float, intervals: Sequence) -> None:
    runs, middle, half = np.arange(1, p95.size + 1), (p95.max() + p95.min()) / 2, p95.mean() / 2
    axis.axhspan(
        middle - limit * half, middle + limit * half, color=style.BAND, alpha=0.15, linewidth=0
    )
    axis.plot(runs, p95, "D", color=COLOURS[clock])
    known = [(run, *bounds) for run, bounds in zip(runs, intervals, strict=False) if bounds]
    if known:
        x, low, high = np.transpose(known)
        axis.vlines(x, low, high, color=COLOURS[clock])
        axis.plot([*x, *x], [*low, *high], "_", color=COLOURS[clock], markersize=9)
    if p95.size <= style.MOST_NAMED_RUNS:
        for run, value in zip(runs, p95, strict=True):
            axis.annotate(number(value), (run, value), (8, 4), textcoords="offset points")
        for run, bounds in zip(runs, intervals, strict=False):
            if bounds is None:
                text = "intervalle\nnon estimable"
                place = {"xytext": (8, -18), "textcoords": "offset points"}
                axis.annotate(
                    text, (run, p95[run - 1]), fontsize=style.NOTE_SIZE, color=GREY, **place
                )
    axis.margins(y=0.25)
    axis.set_xlim(0.5, p95.size + 0.9)
    axis.xaxis.get_major_locator().set_params(integer=True)
    style.french_axis(axis, "y")
    axis.set_xlabel("Run")
    axis.set_ylabel("p95 (ms)")
