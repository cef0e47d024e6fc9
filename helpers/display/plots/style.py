"""What the figures have in common: size, colours, French numbers, title and alt text.

Host and GPU clock have each their colour in every figure. A figure's label is its alt text: `show`
displays it in the notebook, `Session.save_figure` writes it.
"""

import io
from collections.abc import Sequence

import numpy as np
from IPython.display import Image
from matplotlib import rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from helpers.bench_latency import LatencyResult
from helpers.display.french import number
from helpers.stats import LatencySummary

WIDTH = 9.0  # inches, of a notebook's cell
COLOURS = {"gpu": "#0072B2", "host": "#D55E00"}  # Okabe & Ito (2008), for every kind of sight
NAMES = {"gpu": "GPU", "host": "hôte"}
GREY, SHADE, BAND, MARKED = "#555555", "#F0F0F0", "#009E73", "#882E72"
# matplotlib's defaults, then ours: a user's matplotlibrc (LaTeX, 600 dpi) changes no figure.
_NOT_STYLE = {"backend", "backend_fallback", "interactive", "toolbar"}
STYLE = {key: rcParamsDefault[key] for key in rcParamsDefault.keys() - _NOT_STYLE} | {
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
TITLE_SIZE, NOTE_SIZE = 11.0, 7.5
MOST_NAMED_RUNS = 6  # a longer legend would hide its figure
MOST_CURVES = 12  # runs; beyond, quantiles are drawn instead of each run's curve


class DecimalComma(ScalarFormatter):
    """Tick labels as French writes them, with as many decimals as the closest two need."""

    def __call__(self, value, position=None):
        return super().__call__(value, position).replace(".", ",")


class _Figure(Figure):
    """A figure that is saved in the style it was drawn in, whoever saves it."""

    def savefig(self, *args, **kwargs) -> None:
        with rc_context(STYLE):
            super().savefig(*args, **kwargs)


def show(figure: Figure) -> Image:
    """Display a figure in the notebook as PNG with its alt text (output metadata `alt`)."""
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return Image(png.getvalue(), alt=figure.get_label())


def new_figure(height: float) -> Figure:
    """A figure outside pyplot: no global state, nothing shown or kept by itself."""
    return _Figure(figsize=(WIDTH, height), layout="constrained")


def finish(figure: Figure, title: str, alt: str, dataset: str | None = None) -> Figure:
    """Give a figure its title and its alt text; both say where its data set is a synthetic one."""
    origin = {None: "", "cifar10": "", "synthetic": " — données synthétiques"}[dataset]
    figure.suptitle(f"{title}{origin}", x=0.01, ha="left", fontsize=TITLE_SIZE)
    figure.set_label(f"{alt}{origin}")
    return figure


def value_range(values: Sequence[float]) -> str:
    """« 1,303 à 1,310 ms », or one figure where both are the same."""
    low, high = number(min(values)), number(max(values))
    return f"{low} ms" if low == high else f"{low} à {high} ms"


def ms(value: float) -> str:
    return f"{number(value)} ms"


def handle(colour: str, label: str, **style) -> Line2D:
    """A legend's entry."""
    return Line2D([], [], color=colour, label=label, **style)


def french_axis(axis: Axes, which: str) -> None:
    """Few ticks with a decimal comma on axis "x" or "y"."""
    getattr(axis, f"{which}axis").set_major_locator(MaxNLocator(5))
    getattr(axis, f"{which}axis").set_major_formatter(DecimalComma(useOffset=False))


def frame_of(series: Sequence[np.ndarray]) -> tuple[float, float]:
    """Limits of an axis that outliers do not stretch: the 1 % to 99 % range, as much on each side,
    and not beyond the extremes."""
    lows, highs = [], []
    for values in series:
        first, last = np.quantile(values, (0.01, 0.99))
        lows.append(max(values.min(), 2 * first - last))
        highs.append(min(values.max(), 2 * last - first))
    low, high = min(lows), max(highs)
    margin = 0.06 * (high - low) or 0.05 * high or 1.0
    return low - margin, high + margin


def outside(series: Sequence[np.ndarray], frame: tuple[float, float]) -> str:
    """« 2 hors cadre, max 30,20 ms »: how many values lie outside the frame, and how far."""
    values = np.concatenate(series)
    above, below = int((values > frame[1]).sum()), int((values < frame[0]).sum())
    notes = [f"{above} hors cadre, max {ms(values.max())}"] if above else []
    notes += [f"{below} hors cadre, min {ms(values.min())}"] if below else []
    return " · ".join(notes)


def summaries_by_clock(results: Sequence[LatencyResult]) -> dict[str, dict[int, LatencySummary]]:
    """{clock: {run from 1: its summary}}, the GPU's first; a run may lack a clock.

    Raises
    ------
    ValueError
        There is no run.
    """
    if not results:
        raise ValueError("no results to plot: measure at least one run first")
    found = {
        clock: {run: s for run, r in enumerate(results, 1) if (s := getattr(r, clock)) is not None}
        for clock in NAMES
    }
    return {clock: summaries for clock, summaries in found.items() if summaries}


def p95_ranges(by_clock: dict[str, dict[int, LatencySummary]]) -> str:
    """« p95 GPU 1,303 à 1,310 ms, hôte 1,947 à 1,948 ms »."""
    ranges = (
        f"{NAMES[clock]} {value_range([s.p95 for s in summaries.values()])}"
        for clock, summaries in by_clock.items()
    )
    return f"p95 {', '.join(ranges)}"
