"""The latencies of each run in the order of measurement, over the blocks tagged meanwhile."""

from collections.abc import Sequence

import numpy as np
from matplotlib import patheffects, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.bench_latency import LatencyResult
from helpers.display.french import number
from helpers.display.plots import style
from helpers.display.plots.style import COLOURS, GREY, NAMES, STYLE
from helpers.validation.interference import Observation, flags
from helpers.validation.interference.rules import HOST_ONLY, TAG_LABELS

WARMUP = 0.15  # width of a run's warm-up on the axis of runs, on which a run is 1 wide
STEP = 1 + WARMUP + 0.08


@rc_context(STYLE)
def plot_latency_over_time(
    results: Sequence[LatencyResult],
    dataset: str,
    observed: Sequence[Sequence[Observation]] = (),
) -> Figure:
    """Latencies (ms) run after run, one row per clock; quantiles of each run where there are many.

    Parameters
    ----------
    observed
        For each run, what was seen around each of its blocks: a lane per kind of tag stands under
        the rows; no lane where nothing was tagged.

    Raises
    ------
    ValueError
        No results, or observations of another number of runs.
    """
    by_clock = style.summaries_by_clock(results)
    if observed and len(observed) != len(results):
        raise ValueError(f"{len(observed)} runs observed but {len(results)} measured")
    codes = list(dict.fromkeys(code for seen in observed for code in flags(seen)))
    heights = [2.0] * len(by_clock) + [0.2 * len(codes)] * bool(codes)
    figure = style.new_figure(sum(heights) + 1.1)
    axes = figure.subplots(len(heights), squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    draw = _draw_curves if len(results) <= style.MOST_CURVES else _draw_quantiles
    told = [
        draw(axis, clock, summaries, [r.warmup_ms for r in results])
        for axis, (clock, summaries) in zip(axes, by_clock.items(), strict=False)
    ]
    if codes:
        _draw_tags(axes[-1], codes, observed)
        told.append(f"blocs marqués : {', '.join(TAG_LABELS.get(code, code) for code in codes)}")
    step = -(-len(results) // style.MOST_CURVES)
    runs = np.arange(0, len(results), step)
    axes[-1].set_xticks(runs * STEP + 0.5, [f"Run {run + 1}" for run in runs])
    axes[-1].set_xlim(-WARMUP - 0.02, len(results) * STEP - WARMUP)
    axes[-1].set_xlabel("Itérations de chaque run, dans l'ordre de la mesure")
    for axis in axes:
        axis.grid(False, axis="x")
    handles = _legend(len(results), codes, " ".join(told))
    figure.legend(handles=handles, loc="outside lower right", ncols=6)
    return style.finish(
        figure,
        f"Latence au fil des itérations : {style.p95_ranges(by_clock)}",
        f"Latence en ms, {len(results)} runs l'un après l'autre : {style.p95_ranges(by_clock)} ; "
        f"{' ; '.join(told)}.",
        dataset,
    )


def _draw_curves(axis: Axes, clock: str, summaries: dict, warmups: Sequence[np.ndarray]) -> str:
    """One curve per run, its p95 as a tick at its end; return what lies outside the frame."""
    frame = style.frame_of([summary.samples_ms for summary in summaries.values()])
    axis.set_ylim(frame)
    for run, summary in summaries.items():
        start = (run - 1) * STEP
        _draw_series(axis, summary.samples_ms, (start, start + 1), COLOURS[clock])
        if clock == "host":  # the warm-up is timed by the host
            axis.axvspan(start - WARMUP, start, color=style.SHADE, linewidth=0)
            _draw_series(axis, warmups[run - 1], (start - WARMUP, start), GREY)
        axis.plot([start + 0.94, start + 1.04], [summary.p95] * 2, color="black", linewidth=2.2)
        if len(warmups) <= style.MOST_NAMED_RUNS:
            axis.annotate(
                f"p95 {number(summary.p95)}",
                (start + 1.04, summary.p95),
                (0, 4),
                textcoords="offset points",
                ha="right",
                path_effects=[patheffects.withStroke(linewidth=3, foreground="white")],
            )
    notes = [style.outside([summary.samples_ms for summary in summaries.values()], frame)]
    if clock == "host" and (early := style.outside(warmups, frame)):
        notes.append(f"échauffement : {early}")
    return _label(axis, clock, " ; ".join(filter(None, notes)))


def _draw_series(axis: Axes, values: np.ndarray, span: tuple[float, float], colour: str) -> None:
    """One curve over a part of the axis; what lies outside the frame is marked at its edge."""
    x = np.linspace(*span, values.size + 1)[1:]
    axis.plot(x, values, color=colour, linewidth=0.7)
    low, high = axis.get_ylim()
    for edge, marker, beyond in ((high, "^", values > high), (low, "v", values < low)):
        if beyond.any():
            look = {"color": colour, "markersize": 4, "clip_on": False, "zorder": 4}
            axis.plot(x[beyond], np.full(beyond.sum(), edge), marker, **look)


def _draw_quantiles(axis: Axes, clock: str, summaries: dict, warmups: Sequence[np.ndarray]) -> str:
    """Median and the range from p5 to p95 of each run."""
    x = (np.array(list(summaries)) - 1) * STEP + 0.5
    levels = [np.quantile(summary.samples_ms, (0.05, 0.5, 0.95)) for summary in summaries.values()]
    low, middle, high = np.transpose(levels)
    axis.fill_between(x, low, high, color=COLOURS[clock], alpha=0.25, linewidth=0)
    axis.plot(x, middle, ".-", color=COLOURS[clock])
    axis.plot(x, high, "_", color="black", markeredgewidth=1.6)
    return _label(axis, clock, "médiane, p5 à p95 de chaque run")


def _label(axis: Axes, clock: str, note: str) -> str:
    axis.set_title(f"Horloge {NAMES[clock]}", fontweight="bold", color=COLOURS[clock])
    axis.set_title(note, loc="right", fontsize=style.NOTE_SIZE, color=GREY)
    axis.set_ylabel("Latence (ms)")
    style.french_axis(axis, "y")
    return f"horloge {NAMES[clock]} : {note or 'toutes les valeurs dans le cadre'}"


def _draw_tags(axis: Axes, codes: Sequence[str], observed: Sequence[Sequence[Observation]]) -> None:
    """A lane per kind of tag, with the tagged blocks where their samples stand above."""
    axis.set_ylim(len(codes), 0)  # the first lane on top
    axis.set_yticks(np.arange(len(codes)) + 0.5, [TAG_LABELS.get(code, code) for code in codes])
    axis.tick_params(axis="y", left=False, labelsize=style.NOTE_SIZE)
    axis.grid(False, axis="y")
    for lane, code in enumerate(codes):
        for run, seen in enumerate(observed):
            spans = [
                (run * STEP + block / len(seen), 1 / len(seen))
                for block, one in enumerate(seen)
                if any(tag.code == code for tag in one.tags)
            ]
            axis.broken_barh(spans, (lane + 0.15, 0.7), color=_colour(code), linewidth=0)


def _colour(code: str) -> str:
    return COLOURS["host"] if code in HOST_ONLY else style.MARKED


def _legend(runs: int, codes: Sequence[str], told: str) -> list:
    handles = [style.handle("black", "p95", linewidth=2.2)]
    if runs <= style.MOST_CURVES:
        handles.append(style.handle(style.SHADE, "échauffement", linewidth=6))
    if "hors cadre" in told:
        handles.append(style.handle(GREY, "hors cadre", linestyle="", marker="^"))
    names = {style.MARKED: "bloc marqué", COLOURS["host"]: "bloc marqué, horloge hôte seule"}
    colours = dict.fromkeys(map(_colour, codes))
    return handles + [style.handle(colour, names[colour], linewidth=6) for colour in colours]
