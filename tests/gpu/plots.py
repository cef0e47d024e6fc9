"""Figures of the reference measurements: fresh processes, and methods side by side.

Both draw the figures that `tests.gpu.reference` summarised, of one sitting or of several: a list of
(label, figures). A row of such a summary holds `values_ms` (processes, repeats): what was repeated,
p95 or median, in the order of measurement.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers.display.french import percent
from helpers.display.plots.style import (
    BAND,
    COLOURS,
    GREY,
    NOTE_SIZE,
    STYLE,
    DecimalComma,
    finish,
    handle,
    new_figure,
    value_range,
)
from helpers.stats import spread

LIMIT, GOAL = 0.10, 0.003  # of three runs' p95: the criterion, and what the GPU clock aims at
GOAL_MEDIANS = 0.01  # of the medians of all processes of a sitting
SMALLEST = 1e-4  # left end of the spread's axis; smaller ones are marked there
MARKERS = "osD^vPX"  # one per sitting

REPEATED = {  # name in the summary: (French, colour)
    "p95, GPU clock": ("horloge GPU", COLOURS["gpu"]),
    "p95, host clock, consecutive": ("horloge hôte,\nruns consécutifs", COLOURS["host"]),
    "p95, host clock, interleaved": ("horloge hôte,\nruns entrelacés", COLOURS["host"]),
}
METHODS = {
    "p95, plain protocol": ("protocole simple", GREY),
    "p95, Triton do_bench": ("Triton do_bench", GREY),
    "median, torch Timer (block means)": ("torch Timer\n(médiane de moyennes)", GREY),
    "p95, J1 host clock": ("J1, horloge hôte", COLOURS["host"]),
    "p95, J1 GPU clock": ("J1, horloge GPU", COLOURS["gpu"]),
    "p95, J1 GPU clock, L2 flushed": ("J1, horloge GPU, L2 vidé", COLOURS["gpu"]),
}

Sittings = list[tuple[str, dict[str, np.ndarray]]]  # label, {name of the row: values_ms}


@rc_context(STYLE)
def plot_repeatability(figures: dict | Sequence[tuple[str, dict]]) -> Figure:
    """How three runs repeat within fresh processes, and their p95 medians between processes.

    Raises
    ------
    ValueError
        No sitting has repeated runs.
    """
    sittings = _rows_of(figures, "repeatability")
    figure = new_figure(5.6)
    axes = figure.subplot_mosaic([["spread", "median"], ["gpu", "gpu"]], height_ratios=(3, 2))
    names = list(REPEATED)
    worst = _draw_spreads(axes["spread"], sittings, names, REPEATED)
    _add_line(axes["spread"], GOAL, f"visé : {percent(GOAL, 1)}")
    axes["spread"].set_title("Écart de trois runs, par processus", fontweight="bold")
    _draw_medians(axes["median"], sittings, names)
    medians = _draw_gpu_medians(axes["gpu"], sittings, names[0])
    processes = sum(len(rows[names[0]]) for _, rows in sittings)
    _add_legend(figure, sittings)
    finding = (
        f"{processes} processus neufs : le p95 de trois runs s'écarte au pire de "
        f"{percent(worst[names[0]])} (GPU), de {percent(worst[names[1]])} (hôte)"
    )
    told = (
        f"{REPEATED[name][0]} : {_within(sittings, name, LIMIT)} sous {percent(LIMIT)}, "
        f"{_within(sittings, name, GOAL)} sous {percent(GOAL, 1)}, au pire {percent(worst[name])}"
        for name in names
    )
    alt = f"{finding}. {' ; '.join(told)}. p95 médians de l'horloge GPU : {medians}."
    return finish(figure, finding, alt.replace("\n", " "))


@rc_context(STYLE)
def plot_side_by_side(figures: dict | Sequence[tuple[str, dict]]) -> Figure:
    """Spread of three repeats per fresh process of every method, the steadiest method on top.

    Raises
    ------
    ValueError
        No sitting has compared methods.
    """
    sittings = _rows_of(figures, "side_by_side")
    spreads = {name: _spreads(sittings, name) for _, rows in sittings for name in rows}
    names = sorted(spreads, key=lambda name: np.median(spreads[name]))
    figure = new_figure(0.5 * len(names) + 1.5)
    axis = figure.subplots()
    worst = _draw_spreads(axis, sittings, names, METHODS)
    for position, name in enumerate(names):
        axis.annotate(
            f"au pire {percent(worst[name])}",
            (max(worst[name], SMALLEST), position),
            **{"xytext": (7, 0), "textcoords": "offset points", "va": "center"},
            **{"fontsize": NOTE_SIZE, "color": GREY},
        )
    _add_legend(figure, sittings)
    said = [_french(name, METHODS).replace("\n", " ") for name in names]
    medians = [percent(np.median(spreads[name])) for name in names]
    told = (
        f"{label} : médian {median}, au pire {percent(worst[name])}, "
        f"{_within(sittings, name, LIMIT)} sous {percent(LIMIT)}"
        for label, median, name in zip(said, medians, names, strict=True)
    )
    finding = (
        f"Même travail répété trois fois : écart médian de {medians[0]} ({said[0]}) "
        f"à {medians[-1]} ({said[-1]})"
    )
    return finish(figure, finding, f"{finding}. {' ; '.join(told)}.")


def _rows_of(figures: dict | Sequence[tuple[str, dict]], table: str) -> Sittings:
    """The sittings that have this table, with the values of its rows."""
    given = [("", figures)] if isinstance(figures, dict) else list(figures)
    sittings = [
        (label, {row["name"]: np.array(row["values_ms"]) for row in summary[table]})
        for label, summary in given
        if summary.get(table)
    ]
    if not sittings:
        raise ValueError(
            f"none of {len(given)} sitting(s) has figures of {table!r}: "
            "run `python -m tests.gpu.reference FOLDER` on a CUDA GPU"
        )
    return sittings


def _spreads(sittings: Sittings, name: str) -> np.ndarray:
    """Spread of each process, of all sittings that measured `name`."""
    return np.array([spread(row) for _, rows in sittings for row in rows.get(name, ())])


def _within(sittings: Sittings, name: str, limit: float) -> str:
    spreads = _spreads(sittings, name)
    return f"{int((spreads < limit).sum())} sur {spreads.size}"


def _french(name: str, words: dict[str, tuple[str, str]]) -> str:
    return words.get(name, (name, GREY))[0]


def _draw_spreads(axis: Axes, sittings: Sittings, names, words) -> dict[str, float]:
    """One row of dots per name, one dot per process, a tick at their median; return the worst."""
    worst, smallest = {}, 1.0
    for position, name in enumerate(names):
        colour = words.get(name, (name, GREY))[1]
        for index, (_, rows) in enumerate(sittings):
            values = np.array([spread(row) for row in rows.get(name, ())])
            offsets = position + _offsets(index, len(sittings), values.size)
            inside = values > SMALLEST
            style = {"color": colour, "markersize": 4.5, "alpha": 0.7, "linestyle": ""}
            axis.plot(values[inside], offsets[inside], MARKERS[index % 7], mew=0, **style)
            for height in offsets[~inside]:
                axis.plot(SMALLEST, height, "<", clip_on=False, **style)
        spreads = _spreads(sittings, name)
        worst[name], smallest = float(spreads.max()), min(smallest, float(spreads.min()))
        median = max(np.median(spreads), SMALLEST)
        axis.plot([median] * 2, [position - 0.35, position + 0.35], color=colour, linewidth=2)
    axis.set_xscale("log")
    axis.set_xlim(SMALLEST, max(1.5, 4 * max(worst.values())))
    axis.xaxis.set_major_formatter(lambda value, _: percent(value, 1))
    edge = f" (au bord : {percent(SMALLEST, 1)} au plus)" * (smallest <= SMALLEST)
    axis.set_xlabel(f"(max − min) / moyenne des trois p95{edge}")
    limit = percent(LIMIT)
    labels = [f"{_french(n, words)}\n< {limit} : {_within(sittings, n, LIMIT)}" for n in names]
    _set_rows(axis, labels)
    _add_line(axis, LIMIT, f"limite : {percent(LIMIT)}")
    return worst


def _draw_medians(axis: Axes, sittings: Sittings, names) -> None:
    """The median p95 (ms) of each process, in the rows of the spreads."""
    for position, name in enumerate(names):
        for index, (_, rows) in enumerate(sittings):
            medians = np.median(rows[name], axis=1)
            offsets = position + _offsets(index, len(sittings), medians.size)
            style = {"color": REPEATED[name][1], "markersize": 4.5, "alpha": 0.7, "linestyle": ""}
            axis.plot(medians, offsets, MARKERS[index % 7], mew=0, **style)
    _set_rows(axis, [""] * len(names))
    axis.xaxis.set_major_formatter(DecimalComma(useOffset=False))
    axis.set_xlabel("p95 (ms)")
    axis.set_title("p95 médian de chaque processus", fontweight="bold")


def _draw_gpu_medians(axis: Axes, sittings: Sittings, name: str) -> str:
    """The GPU clock's medians, enlarged, in the order of measurement; return what they show."""
    told, widths, start = [], [], 1
    for index, (_, rows) in enumerate(sittings):
        medians = np.median(rows[name], axis=1)
        places = np.arange(start, start + medians.size)
        middle, half = (medians.max() + medians.min()) / 2, GOAL_MEDIANS * medians.mean() / 2
        ends = [places[0] - 0.4, places[-1] + 0.4]
        axis.fill_between(ends, middle - half, middle + half, color=BAND, alpha=0.15, linewidth=0)
        axis.plot(places, medians, MARKERS[index % 7], color=COLOURS["gpu"], markersize=4.5)
        widths.append(percent((medians.max() - medians.min()) / medians.mean()))
        told.append(f"{value_range(medians)} ({widths[-1]})")
        start += medians.size
    if len(sittings) > 1:
        centres = [np.median(np.median(rows[name], axis=1)) for _, rows in sittings]
        told.append(f"décalage entre séances {percent(spread(centres))}")
        widths.append(told[-1])
    axis.margins(y=0.1)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.yaxis.set_major_formatter(DecimalComma(useOffset=False))
    axis.set_xlabel(
        f"Processus, dans l'ordre des mesures (bande : {percent(GOAL_MEDIANS, 1)}, visé)"
    )
    axis.set_ylabel("p95 (ms)")
    axis.set_title(f"Horloge GPU, de près : étendue {' ; '.join(widths)}", fontweight="bold")
    return " ; ".join(told)


def _offsets(index: int, sittings: int, size: int) -> np.ndarray:
    """Heights (size,) around 0 that keep the processes, and the sittings, of a row apart."""
    lane = 0.6 / sittings
    # Multiples of the golden section: neighbours in time lie apart, and no two figures differ.
    return lane * (np.arange(1, size + 1) * 0.618 % 1 - 0.5) + lane * (index - (sittings - 1) / 2)


def _set_rows(axis: Axes, labels: Sequence[str]) -> None:
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.45, -0.55)
    axis.grid(False, axis="y")
    axis.tick_params(axis="y", left=False)


def _add_line(axis: Axes, value: float, label: str) -> None:
    axis.axvline(value, color=GREY, linestyle="--", linewidth=0.8)
    axis.annotate(
        label,
        (value, 1),
        xycoords=axis.get_xaxis_transform(),
        **{"xytext": (3, -2), "textcoords": "offset points", "va": "top"},
        **{"fontsize": NOTE_SIZE, "color": GREY},
    )


def _add_legend(figure: Figure, sittings: Sittings) -> None:
    handles = [handle(GREY, "médiane", linestyle="", marker="|", markersize=10, mew=2)]
    handles += [
        Line2D([], [], color=GREY, linestyle="", marker=MARKERS[i % 7], label=label or "processus")
        for i, (label, _) in enumerate(sittings)
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles))
