"""The latencies of each run in the order of measurement, over what was seen meanwhile."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.bench_latency import LatencyResult
from helpers.display.plots.strip import Strip, make_strips
from helpers.display.plots.style import (
    COLOURS,
    GREY,
    MOST_NAMED_RUNS,
    MOST_POINTS,
    NAMES,
    SHADE,
    STYLE,
    DecimalComma,
    clocks_of,
    finish,
    frame_of,
    handle,
    ms,
    new_figure,
    note_outside,
    p95_ranges,
    thousands,
)
from helpers.validation.interference import Observation


@rc_context(STYLE)
def plot_latency_over_time(
    results: Sequence[LatencyResult],
    dataset: str,
    observed: Sequence[Sequence[Observation]] = (),
) -> Figure:
    """Latencies (ms) of each run in the order of measurement, its warm-up apart, by both clocks.

    Parameters
    ----------
    observed
        For each run, what was seen around each of its blocks: drawn as a strip under the run, with
        the GPU's SM clock (MHz) and temperature (°C) and the tagged blocks; no strip where there
        is nothing to show.

    Raises
    ------
    ValueError
        No results, or observations that do not fit them.
    """
    clocks = clocks_of(results)
    frame = frame_of([getattr(r, clock).samples_ms for r in results for clock in clocks])
    strips = make_strips(results, observed)
    figure, panels, last_row = _lay_out(strips)
    outside = np.zeros(2, dtype=int)
    for index, (result, strip, rows) in enumerate(zip(results, strips, panels, strict=True), 1):
        outside += _draw_run(rows[0], result, f"Run {index}", clocks, frame)
        if strip:
            strip.draw(*rows[1])
    last_row[0].set_xlabel("Échauffement\n(itération)")
    longest = max(r.host.n for r in results)
    thinned = f", tracée par min et max de {_bin(longest)} itérations" * (longest > MOST_POINTS)
    last_row[1].set_xlabel(f"Itération mesurée{thinned}")
    for axis in last_row:
        axis.xaxis.set_major_formatter(lambda value, _: thousands(value))
    handles = [handle(COLOURS[clock], f"horloge {NAMES[clock]}") for clock in clocks]
    handles.append(handle(GREY, "p95", linestyle="--", linewidth=0.8))
    if outside.any():
        handles.append(handle(GREY, "hors cadre", linestyle="", marker="^"))
    legends = (strip.legend() for strip in strips if strip)
    handles += {label: entry for legend in legends for label, entry in legend.items()}.values()
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles))
    seen = [f"run {i} : {strip.description}" for i, strip in enumerate(strips, 1) if strip]
    return finish(
        figure,
        f"Latence au fil des itérations : {p95_ranges(results, clocks)}",
        f"Latence de chaque itération en ms, {len(results)} runs, échauffement à part : "
        f"{p95_ranges(results, clocks)} ; valeurs hors cadre : {outside[0]}, plus {outside[1]} "
        f"pendant l'échauffement.{' Observé, ' * bool(seen)}{' ; '.join(seen)}{'.' * bool(seen)}",
        dataset,
    )


def _lay_out(strips: Sequence[Strip | None]) -> tuple[Figure, list[list[np.ndarray]], np.ndarray]:
    """A figure with one row of (warm-up, run) axes per run, and one more for each strip.

    Returns the figure, the rows of each run, and the last row of all.
    """
    tall = len(strips) <= MOST_NAMED_RUNS
    heights = []
    for strip in strips:
        heights += [1.35 if tall else 0.9, *([strip.height] if strip else [])]
    figure = new_figure((0.4 if tall else 0.3) * len(strips) + sum(heights) + 0.9)
    rows = iter(
        figure.subplots(
            *(len(heights), 2),
            squeeze=False,
            sharey="row",
            sharex="col",
            width_ratios=(1, 6),
            height_ratios=heights,
        )
    )
    panels = [[next(rows), next(rows)] if strip else [next(rows)] for strip in strips]
    return figure, panels, panels[-1][-1]


def _draw_run(axes, result: LatencyResult, name: str, clocks, frame) -> tuple[int, int]:
    """Draw one run beside its warm-up; return how many values lie outside, (run, warm-up)."""
    before, axis = axes
    axis.set_ylim(frame)
    before.set_facecolor(SHADE)
    _draw_series(before, result.warmup_ms, "host", alpha=0.6)
    before.set_ylabel("Latence (ms)")
    findings = []
    for clock in clocks:
        summary = getattr(result, clock)
        _draw_series(axis, summary.samples_ms, clock)
        axis.axhline(summary.p95, color=COLOURS[clock], linestyle="--", linewidth=0.8)
        findings.append(f"p95 {NAMES[clock]} : {ms(summary.p95)}")
    axis.set_title(f"{name} : {', '.join(findings)}", fontweight="bold")
    measured = [getattr(result, clock).samples_ms for clock in clocks]
    return note_outside(axis, measured, frame), note_outside(before, [result.warmup_ms], frame)


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
    axis.yaxis.set_major_formatter(DecimalComma(useOffset=False))


def _bin(size: int) -> int:
    """How many values share one place of a curve with at most MOST_POINTS points."""
    return 1 if size <= MOST_POINTS else -(-size // (MOST_POINTS // 2))
