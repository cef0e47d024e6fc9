"""What the figures have in common: size, colours, French numbers, title and alt text.

Host and GPU clock have each their colour in every figure. A figure's label is its alt text: `show`
displays it in the notebook, `Session.save_figure` writes it.
"""

import io
from collections.abc import Sequence

import numpy as np
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

from helpers.bench_latency import LatencyResult
from helpers.display.french import number

WIDTH = 9.0  # inches, of a notebook's cell
COLOURS = {"gpu": "#0072B2", "host": "#D55E00"}  # Okabe & Ito (2008), for every kind of sight
NAMES = {"gpu": "GPU", "host": "hôte"}
GREY, SHADE, BAND, MARKED = "#555555", "#F0F0F0", "#009E73", "#882E72"
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
TITLE_SIZE, NOTE_SIZE = 11.0, 7.5
MOST_POINTS = 4000  # per curve; beyond, a thinned one is drawn
MOST_NAMED_RUNS = 6  # a longer legend would hide its figure


class DecimalComma(ScalarFormatter):
    """Tick labels as French writes them, with as many decimals as the closest two need."""

    def __call__(self, value, position=None):
        return super().__call__(value, position).replace(".", ",")


def show(figure: Figure) -> Image:
    """Display a figure in the notebook as PNG with its alt text (output metadata `alt`)."""
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return Image(png.getvalue(), alt=figure.get_label())


def new_figure(height: float) -> Figure:
    """A figure outside pyplot: no global state, nothing shown or kept by itself."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


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


def thousands(value: float) -> str:
    """1980 → « 1 980 » (with a no-break space)."""
    return f"{value:,.0f}".replace(",", "\N{NO-BREAK SPACE}")


def handle(colour: str, label: str, **style) -> Line2D:
    """A legend's entry."""
    return Line2D([], [], color=colour, label=label, **style)


def frame_of(series: Sequence[np.ndarray]) -> tuple[float, float]:
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


def note_outside(axis: Axes, series: Sequence[np.ndarray], frame: tuple[float, float]) -> int:
    """Say above the axis how many values lie outside the frame, and how far; return how many."""
    values = np.concatenate(series)
    above, below = int((values > frame[1]).sum()), int((values < frame[0]).sum())
    notes = [f"{above} hors cadre, max {ms(values.max())}"] if above else []
    notes += [f"{below} hors cadre, min {ms(values.min())}"] if below else []
    axis.set_title(" · ".join(notes), loc="right", fontsize=NOTE_SIZE, color=GREY)
    return above + below


def clocks_of(results: Sequence[LatencyResult]) -> list[str]:
    """The clocks that all runs have, the GPU's first.

    Raises
    ------
    ValueError
        There is no run.
    """
    if not results:
        raise ValueError("no results to plot: measure at least one run first")
    return [clock for clock in NAMES if all(getattr(r, clock) is not None for r in results)]


def p95_ranges(results: Sequence[LatencyResult], clocks: Sequence[str]) -> str:
    """« p95 GPU 1,303 à 1,310 ms, hôte 1,947 à 1,948 ms »."""
    ranges = (f"{NAMES[c]} {value_range([getattr(r, c).p95 for r in results])}" for c in clocks)
    return f"p95 {', '.join(ranges)}"
