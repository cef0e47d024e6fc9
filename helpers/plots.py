"""Figures, one family: French labels with units, one colour per clock, the finding in the title.

Each function draws what it is given and returns a matplotlib Figure whose label is its alt text:
`show` displays it in the notebook, `Session.save_figure` writes it. Nothing is hidden: values that
would flatten a curve are marked at the edge of the frame and counted, a thinned curve says so.
"""

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from IPython.display import Image
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

from helpers.bench_latency import LatencyResult
from helpers.french import number, percent
from helpers.stats import spread

WIDTH = 9.0  # inches, of a notebook's cell
COLOURS = {"gpu": "#0072B2", "host": "#D55E00"}  # Okabe & Ito (2008), for every kind of sight
NAMES = {"gpu": "GPU", "host": "hôte"}
GREY, SHADE, BAND = "#555555", "#F0F0F0", "#009E73"
STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "lines.linewidth": 1.0,
}
MOST_POINTS = 4000  # per curve; beyond, its minima and maxima are drawn
MOST_NAMED_RUNS = 6  # a longer legend would hide its figure
TITLE_SIZE, NOTE_SIZE = 11.0, 7.5


class _DecimalComma(ScalarFormatter):
    """Tick labels as French writes them, with as many decimals as the closest two need."""

    def __call__(self, value, position=None):
        return super().__call__(value, position).replace(".", ",")


def show(figure: Figure) -> Image:
    """Display a figure in the notebook as PNG with its alt text (output metadata `alt`)."""
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return Image(png.getvalue(), alt=figure.get_label())


@rc_context(STYLE)
def plot_images(
    images: np.ndarray, labels: Sequence[int], class_names: Sequence[str], dataset: str
) -> Figure:
    """Images (n, 32, 32, 3) uint8 in rows of ten, each with the name of its class."""
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels: give one label per image")
    columns = min(10, len(images))
    rows = -(-len(images) // columns)
    figure = _figure(1.3 * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, image, label in zip(axes, images, labels, strict=False):  # the last row may be short
        axis.imshow(image, interpolation="nearest")
        axis.set_title(textwrap.fill(class_names[label], 13), loc="center", fontsize=8)
    shown = ", ".join(dict.fromkeys(class_names[label] for label in labels))
    _entitle(figure, "Exemples d'images (32 × 32 pixels)", dataset)
    return _describe(figure, f"Grille de {len(images)} images avec leur classe : {shown}.", dataset)


@rc_context(STYLE)
def plot_latency_over_time(results: Sequence[LatencyResult], dataset: str) -> Figure:
    """Latencies (ms) of each run in the order of measurement, its warm-up apart, by both clocks."""
    clocks = _clocks(results)
    low, high = _frame([getattr(r, clock).samples_ms for r in results for clock in clocks])
    figure = _figure((1.75 if len(results) <= MOST_NAMED_RUNS else 1.2) * len(results) + 0.9)
    axes = figure.subplots(
        *(len(results), 2), squeeze=False, sharey=True, sharex="col", width_ratios=(1, 6)
    )
    axes[0, 0].set_ylim(low, high)
    outside = outside_warmup = 0
    for index, (result, (before, axis)) in enumerate(zip(results, axes, strict=True), start=1):
        before.set_facecolor(SHADE)
        _draw_series(before, result.warmup_ms, "host", alpha=0.6)
        before.set_ylabel("Latence (ms)")
        findings = []
        for clock in clocks:
            summary = getattr(result, clock)
            _draw_series(axis, summary.samples_ms, clock)
            axis.axhline(summary.p95, color=COLOURS[clock], linestyle="--", linewidth=0.8)
            findings.append(f"p95 {NAMES[clock]} : {_ms(summary.p95)}")
        axis.set_title(f"Run {index} : {', '.join(findings)}", fontweight="bold")
        measured = [getattr(result, clock).samples_ms for clock in clocks]
        outside += _note_outside(axis, measured, (low, high))
        outside_warmup += _note_outside(before, [result.warmup_ms], (low, high))
    axes[-1, 0].set_xlabel("Échauffement\n(itération)")
    longest = max(r.host.n for r in results)
    thinned = f", tracée par min et max de {_bin(longest)} itérations" * (longest > MOST_POINTS)
    axes[-1, 1].set_xlabel(f"Itération mesurée{thinned}")
    for axis in axes[-1]:
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace(",", "\u00a0"))
    _entitle(figure, f"Latence au fil des itérations : {_p95_range(results, clocks)}", dataset)
    handles = [_handle(clock, f"horloge {NAMES[clock]}") for clock in clocks]
    handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=0.8, label="p95"))
    if outside or outside_warmup:
        handles.append(Line2D([], [], color=GREY, linestyle="", marker="^", label="hors cadre"))
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles))
    return _describe(
        figure,
        f"Latence de chaque itération en ms, {len(results)} runs, échauffement à part : "
        f"{_p95_range(results, clocks)} ; valeurs hors cadre : {outside}, plus {outside_warmup} "
        "pendant l'échauffement.",
        dataset,
    )


@rc_context(STYLE)
def plot_distribution(results: Sequence[LatencyResult], dataset: str) -> Figure:
    """Empirical distribution of the latencies (ms) of each run, mean and p95 marked, per clock."""
    clocks = _clocks(results)
    figure = _figure(4.6)
    axes = figure.subplots(1, len(clocks), squeeze=False, sharey=True).ravel()
    for axis, clock in zip(axes, clocks, strict=True):
        summaries = [getattr(result, clock) for result in results]
        axis.set_xlim(_frame([s.samples_ms for s in summaries]))
        for index, summary in enumerate(summaries):
            _draw_ecdf(axis, summary, index, len(summaries), clock)
        axis.axhline(95, color=GREY, linestyle=":", linewidth=0.8)
        axis.set_title(f"Horloge {NAMES[clock]}", fontweight="bold", color=COLOURS[clock])
        axis.set_xlabel("Latence (ms)")
        axis.set_ylim(0, 102)
        if len(results) <= MOST_NAMED_RUNS:
            axis.legend(loc="upper left", bbox_to_anchor=(0, -0.15))  # below: it hides no curve
        _note_outside(axis, [s.samples_ms for s in summaries], axis.get_xlim())
    axes[0].set_ylabel("Part des itérations\nau plus à cette latence (%)")
    handles = [
        Line2D([], [], color=GREY, marker=marker, linestyle="", label=label)
        for marker, label in (("o", "moyenne"), ("D", "p95"))
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=2)
    _entitle(figure, f"Distribution des latences : {_p95_range(results, clocks)}", dataset)
    means = " ; ".join(
        f"moyenne {NAMES[c]} : {_range([getattr(r, c).mean for r in results])}" for c in clocks
    )
    return _describe(
        figure,
        f"Fonction de répartition des latences de {len(results)} runs : {means} ; "
        f"{_p95_range(results, clocks)}.",
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
    figure = _figure(3.6)
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
        axis.yaxis.set_major_formatter(_DecimalComma(useOffset=False))
        axis.set_xlabel("Run")
        axis.set_ylabel("p95 (ms)")
        sign = "<" if spread(p95) < limit else "≥"
        finding = (
            f"Horloge {NAMES[clock]} : écart {percent(spread(p95), 3)} {sign} {percent(limit)}"
        )
        axis.set_title(finding, fontweight="bold", color=COLOURS[clock])
        findings.append(f"{finding} (p95 : {_range(p95)})")
    handles = [
        Line2D(
            [],
            [],
            color=BAND,
            alpha=0.3,
            linewidth=8,
            label=f"bande : {percent(limit)} de la moyenne",
        ),
        Line2D([], [], color=GREY, linestyle="--", linewidth=0.8, label="moyenne des p95"),
    ]
    if any(bounds is not None for of_clock in (intervals or {}).values() for bounds in of_clock):
        label = "intervalle de confiance"
        handles.append(Line2D([], [], color=GREY, marker="|", markersize=8, label=label))
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles))
    _entitle(figure, "p95 des runs : (max − min) / moyenne", dataset)
    return _describe(figure, f"p95 de chaque run : {' ; '.join(findings)}.", dataset)


def _figure(height: float) -> Figure:
    """A figure outside pyplot: no global state, nothing shown or kept by itself."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def _entitle(figure: Figure, title: str, dataset: str) -> None:
    figure.suptitle(f"{title}{_origin(dataset)}", x=0.01, ha="left", fontsize=TITLE_SIZE)


def _describe(figure: Figure, text: str, dataset: str) -> Figure:
    figure.set_label(f"{text}{_origin(dataset)}")
    return figure


def _origin(dataset: str) -> str:
    return {"cifar10": "", "synthetic": " — données synthétiques"}[dataset]


def _clocks(results: Sequence[LatencyResult]) -> list[str]:
    if not results:
        raise ValueError("no results to plot: measure at least one run first")
    return [clock for clock in NAMES if all(getattr(r, clock) is not None for r in results)]


def _frame(series: Sequence[np.ndarray]) -> tuple[float, float]:
    """Limits of an axis that outliers do not stretch: the 1 % to 99 % range, as much on each side,
    and not beyond the extremes."""
    lows, highs = [], []
    for values in series:
        first, last = np.quantile(values, (0.01, 0.99))
        reach = last - first
        lows.append(max(values.min(), first - reach))
        highs.append(min(values.max(), last + reach))
    low, high = min(lows), max(highs)
    margin = 0.06 * (high - low) or 0.05 * high or 1.0
    return low - margin, high + margin


def _draw_series(axis: Axes, values: np.ndarray, clock: str, alpha: float = 1.0) -> None:
    """One curve over iterations; what lies outside the frame is marked at its edge."""
    positions = np.arange(1, values.size + 1)
    low, high = axis.get_ylim()
    for edge, marker, outside in ((high, "^", values > high), (low, "v", values < low)):
        marked = np.unique(positions[outside] // _bin(values.size) * _bin(values.size))
        if marked.size:
            style = {"color": COLOURS[clock], "markersize": 4, "clip_on": False, "zorder": 4}
            axis.plot(marked, np.full(marked.size, edge), marker, **style)
    if values.size > MOST_POINTS:
        starts = np.arange(0, values.size, _bin(values.size))
        envelope = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        values, positions = np.stack(envelope, axis=1).ravel(), np.repeat(starts + 1, 2)
    axis.plot(positions, values, color=COLOURS[clock], alpha=alpha, linewidth=0.7)
    axis.yaxis.set_major_formatter(_DecimalComma(useOffset=False))


def _bin(size: int) -> int:
    """How many values share one place of a curve with at most MOST_POINTS points."""
    return 1 if size <= MOST_POINTS else -(-size // (MOST_POINTS // 2))


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
    axis.xaxis.set_major_formatter(_DecimalComma(useOffset=False))


def _note_outside(axis: Axes, series: Sequence[np.ndarray], frame: tuple[float, float]) -> int:
    """Say above the axis how many values lie outside the frame, and how far; return how many."""
    values = np.concatenate(series)
    above, below = int((values > frame[1]).sum()), int((values < frame[0]).sum())
    notes = [f"{above} hors cadre, max {_ms(values.max())}"] if above else []
    notes += [f"{below} hors cadre, min {_ms(values.min())}"] if below else []
    axis.set_title(" · ".join(notes), loc="right", fontsize=NOTE_SIZE, color=GREY)
    return above + below


def _p95_range(results: Sequence[LatencyResult], clocks: Sequence[str]) -> str:
    ranges = (f"{NAMES[c]} {_range([getattr(r, c).p95 for r in results])}" for c in clocks)
    return f"p95 {', '.join(ranges)}"


def _range(values: Sequence[float]) -> str:
    """« 1,303 à 1,310 ms », or one figure where both are the same."""
    low, high = number(min(values)), number(max(values))
    return f"{low} ms" if low == high else f"{low} à {high} ms"


def _ms(value: float) -> str:
    return f"{number(value)} ms"


def _handle(clock: str, label: str) -> Line2D:
    return Line2D([], [], color=COLOURS[clock], label=label)
