"""A slim strip under a run: SM clock, temperature and tagged blocks over the same iterations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from helpers.bench_latency import BLOCK, LatencyResult
from helpers.display.plots.style import COLOURS, GREY, MARKED, NOTE_SIZE, handle, thousands
from helpers.validation.interference import Observation, flags
from helpers.validation.interference.rules import HOST_ONLY, TAG_LABELS

LANE = 0.17  # inches
MOST_NAMED_SPANS = 6  # in the alt text, per kind of tag; beyond, their blocks are counted


@dataclass(frozen=True)
class Gauge:
    """A quantity read at the end of each block, and the scale that all runs share.

    values (blocks,), NaN where it was not observable; low, high: the scale.
    """

    name: str
    unit: str
    values: np.ndarray
    low: float
    high: float

    @property
    def label(self) -> str:
        ends = [thousands(end(self.values)) for end in (np.nanmin, np.nanmax)]
        return f"{self.name} {' à '.join(dict.fromkeys(ends))} {self.unit}"


@dataclass(frozen=True)
class Strip:
    """One lane per gauge and per kind of tag; `tags`: {code: spans (first, last + 1) of blocks}."""

    gauges: tuple[Gauge, ...]
    tags: dict[str, list[tuple[int, int]]]
    samples: int

    @property
    def height(self) -> float:
        """In inches."""
        return LANE * (len(self.gauges) + len(self.tags))

    @property
    def description(self) -> str:
        """All of it in French words, for the alt text."""
        told = [gauge.label for gauge in self.gauges]
        for code, spans in self.tags.items():
            blocks = [f"bloc {b}" if b == a + 1 else f"blocs {a + 1} à {b}" for a, b in spans]
            if len(blocks) > MOST_NAMED_SPANS:
                blocks = [f"{sum(b - a for a, b in spans)} blocs sur {-(-self.samples // BLOCK)}"]
            told.append(f"{_label(code)} ({', '.join(blocks)})")
        return ", ".join(told)

    def legend(self) -> dict[str, Line2D]:
        """What the colours of the tags say, {label: entry}."""
        style = {"linewidth": 6, "solid_capstyle": "butt"}
        labels = {MARKED: "bloc marqué", COLOURS["host"]: "bloc marqué, horloge hôte seule"}
        colours = dict.fromkeys(map(_colour, self.tags))
        return {labels[colour]: handle(colour, labels[colour], **style) for colour in colours}

    def draw(self, names: Axes, axis: Axes) -> None:
        """Draw the lanes on `axis` and write their names on `names`, at its left."""
        lanes = [*self.gauges, *self.tags]
        axis.set_ylim(len(lanes), 0)  # the first lane on top
        axis.grid(False, axis="y")
        for side in ("left", "bottom"):
            names.spines[side].set_visible(False)
        names.grid(False)
        names.tick_params(axis="x", bottom=False)
        for one in (names, axis):
            one.tick_params(axis="y", left=False, labelleft=False)
        for lane, what in enumerate(lanes):
            label = what.label if isinstance(what, Gauge) else _label(what)
            names.text(
                *(1.0, lane + 0.5, label),
                transform=names.get_yaxis_transform(),
                **{"ha": "right", "va": "center", "fontsize": NOTE_SIZE, "color": GREY},
            )
            if isinstance(what, Gauge):
                height = (what.values - what.low) / (what.high - what.low)
                edges = self._edge(np.arange(len(what.values) + 1))
                axis.stairs(lane + 0.85 - 0.7 * height, edges, baseline=None, color=GREY)
            else:
                spans = [(self._edge(a), self._edge(b) - self._edge(a)) for a, b in self.tags[what]]
                axis.broken_barh(spans, (lane + 0.15, 0.7), color=_colour(what), linewidth=0)

    def _edge(self, block):
        """Where a block begins on an axis on which the first sample is at 1."""
        return np.minimum(block * BLOCK, self.samples) + 0.5


def make_strips(
    results: Sequence[LatencyResult], observed: Sequence[Sequence[Observation]]
) -> list[Strip | None]:
    """One strip per run; None where nothing was observed that could be shown.

    Raises
    ------
    ValueError
        The observations are not those of these runs.
    """
    if not observed:
        return [None] * len(results)
    if len(observed) != len(results):
        raise ValueError(
            f"{len(observed)} runs observed but {len(results)} measured: give one tuple of "
            "observations per run, or none at all"
        )
    for run, (result, seen) in enumerate(zip(results, observed, strict=True), start=1):
        if seen and len(seen) != -(-result.host.n // BLOCK):
            raise ValueError(
                f"run {run} has {result.host.n} samples in blocks of {BLOCK} but {len(seen)} "
                "observations: give the results and observations of the same runs"
            )
    # The clock's scale hangs from its highest value, the temperature's stands on its lowest, and
    # neither is finer than this, so that a step of 1 % does not look like a collapse.
    clocks = _series(observed, "sm_mhz")
    high = np.nanmax(np.concatenate([*clocks, [1.0]]))
    low = np.nanmin(np.concatenate([*clocks, [0.9 * high]]))
    heats = _series(observed, "temperature_c")
    coolest = np.nanmin(np.concatenate([*heats, [np.inf]]))
    hottest = np.nanmax(np.concatenate([*heats, [coolest + 10]]))
    strips = []
    for result, seen, mhz, celsius in zip(results, observed, clocks, heats, strict=True):
        gauges = Gauge("SM", "MHz", mhz, low, high), Gauge("GPU", "°C", celsius, coolest, hottest)
        shown = tuple(gauge for gauge in gauges if np.isfinite(gauge.values).any())
        tags = {code: _spans(seen, code) for code in flags(seen)}
        strips.append(Strip(shown, tags, result.host.n) if shown or tags else None)
    return strips


def _series(observed, name: str) -> list[np.ndarray]:
    return [np.array([getattr(o, name) for o in seen], dtype=float) for seen in observed]


def _spans(observations: Sequence[Observation], code: str) -> list[tuple[int, int]]:
    """Runs of neighbouring blocks that carry a tag, as (first, last + 1)."""
    tagged = [any(tag.code == code for tag in o.tags) for o in observations]
    changes = np.flatnonzero(np.diff([False, *tagged, False]))
    return [(int(a), int(b)) for a, b in changes.reshape(-1, 2)]


def _label(code: str) -> str:
    return TAG_LABELS.get(code, code)


def _colour(code: str) -> str:
    return COLOURS["host"] if code in HOST_ONLY else MARKED
