"""What the figures have in common: size, French numbers, each clock's colour, alternative text."""

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib import rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from helpers.display.colours import COLOURS, GREY, GRID
from helpers.display.french import number
from helpers.display.words import DATASETS

WIDTH = 9.0  # inches, of a notebook's cell
NAMES = {"gpu": "GPU", "host": "hôte"}
# matplotlib's defaults, then ours: a user's matplotlibrc (LaTeX, 600 dpi) changes no figure.
_NOT_STYLE = {"backend", "backend_fallback", "interactive", "toolbar"}
STYLE = {key: rcParamsDefault[key] for key in rcParamsDefault.keys() - _NOT_STYLE}
STYLE |= {"figure.dpi": 110, "font.size": 9.0, "legend.fontsize": 8.0, "lines.linewidth": 1.0}
STYLE |= {"axes.titlesize": 9.0, "axes.titlelocation": "left", "legend.frameon": False}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False, "grid.color": GRID}
STYLE |= {"figure.titlesize": 11.0, "axes.grid": True, "axes.axisbelow": True}
NOTE_SIZE = 7.5
NOTE = {"loc": "right", "fontsize": NOTE_SIZE, "color": GREY}  # a remark above an axis


class DecimalComma(ScalarFormatter):
    """Tick labels as French writes them, with as many decimals as the closest two need."""

    def __call__(self, value, position=None):
        return super().__call__(value, position).replace(".", ",")


class _Figure(Figure):
    savefig = rc_context(STYLE)(Figure.savefig)  # as it was drawn, whoever saves it


def new_figure(height: float) -> Figure:
    """A figure outside pyplot: no global state, nothing shown or kept by itself."""
    return _Figure(figsize=(WIDTH, height), layout="constrained")


def clock_axes(
    clocks: Collection[str], which: str, label: str, height: float, stacked: bool = False
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with an axis per clock: latencies along `which`, few ticks, decimal commas."""
    figure, shape = new_figure(height), (len(clocks), 1) if stacked else (1, len(clocks))
    axes = figure.subplots(*shape, squeeze=False, sharex=stacked).ravel()
    for clock, axis in zip(clocks, axes, strict=True):
        axis.set_title(f"Horloge {NAMES[clock]}", fontweight="bold", color=COLOURS[clock])
        axis.set(**{f"{which}label": label})
        getattr(axis, f"{which}axis").set_major_locator(MaxNLocator(5))
        getattr(axis, f"{which}axis").set_major_formatter(DecimalComma(useOffset=False))
    return figure, dict(zip(clocks, axes, strict=True))


def handle(colour: str, label: str, **style) -> Line2D:
    """A legend's entry."""
    return Line2D([], [], color=colour, label=label, **style)


def finish(figure: Figure, title: str, alt: str, dataset: str) -> Figure:
    """Give a figure its title and its alt text; both say what it is about, if not CIFAR-10."""
    origin = "" if dataset == "cifar10" else f" — {DATASETS[dataset]}"
    figure.suptitle(f"{title}{origin}", x=0.01, ha="left")
    figure.set_label(f"{alt}{origin}")
    return figure


def frame_of(series: Sequence[np.ndarray]) -> tuple[float, float]:
    """Limits of an axis that outliers do not stretch: the 3 % to 97 % range, so the p95 as well, as
    much again on each side, and not beyond the extremes."""
    ends = [(*np.quantile(values, (0.03, 0.97)), values.min(), values.max()) for values in series]
    low = min(max(least, 2 * first - last) for first, last, least, _ in ends)
    high = max(min(most, 2 * last - first) for first, last, _, most in ends)
    margin = 0.06 * (high - low) or 0.05 * high or 1.0
    return low - margin, high + margin


def outside(series: Sequence[np.ndarray], frame: tuple[float, float]) -> str:
    """« 2 hors cadre, max 30,20 ms »: how many values lie outside the frame, and how far."""
    values = np.concatenate(series)
    above, below = int((values > frame[1]).sum()), int((values < frame[0]).sum())
    notes = [f"{above} hors cadre, max {number(values.max())} ms"] * bool(above)
    notes += [f"{below} hors cadre, min {number(values.min())} ms"] * bool(below)
    return " · ".join(notes)
