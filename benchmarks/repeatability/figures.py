"""Draw repeatability.png and side_by_side.png from what `measure` found.

    python -m benchmarks.repeatability.figures

Every dot is one fresh process; its spread is (max − min) / mean over three repeats.
"""

import json
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.display.french import percent
from helpers.display.plots.style import BAND, COLOURS, GREY, NOTE_SIZE, STYLE, DecimalComma
from helpers.stats import spread

HERE = Path(__file__).parent
LIMIT, GOAL = 0.10, 0.003  # of three runs' p95: the criterion, and what the GPU clock aims at
GOAL_MEDIANS = 0.01  # of the medians of all processes
SMALLEST = 1e-4  # left end of the spread's axis; smaller ones are marked there
ROWS = {  # name in reference.json: (French, colour)
    "p95, GPU clock": ("horloge GPU", COLOURS["gpu"]),
    "p95, host clock": ("horloge hôte", COLOURS["host"]),
    "p95, plain protocol": ("protocole simple", GREY),
    "p95, Triton do_bench": ("Triton do_bench", GREY),
    "median, torch Timer (block means)": ("torch Timer\n(médiane de moyennes)", GREY),
    "p95, J1 host clock": ("J1, horloge hôte", COLOURS["host"]),
    "p95, J1 GPU clock": ("J1, horloge GPU", COLOURS["gpu"]),
    "p95, J1 GPU clock, L2 flushed": ("J1, horloge GPU, L2 vidé", COLOURS["gpu"]),
}

Values = dict[str, np.ndarray]  # name of a row: (processes, repeats) in ms


def read(part: str, table: str) -> Values:
    """The rows of one table of `part`/reference.json that the figures draw."""
    text = (HERE / part / "reference.json").read_text(encoding="utf8")
    rows = json.loads(text)["figures"][table]
    named = {r["name"].removesuffix(", consecutive"): np.array(r["values_ms"]) for r in rows}
    return {name: values for name, values in named.items() if name in ROWS}


@rc_context(STYLE)
def plot_side_by_side(values: Values) -> Figure:
    """Spread of three repeats per fresh process of every method, the steadiest on top."""
    names = sorted(values, key=lambda name: np.median(spreads_of(values[name])))
    figure = Figure(figsize=(9, 0.5 * len(names) + 1.5), layout="constrained")
    axis = figure.subplots()
    told = draw_spreads(axis, values, names)
    for position, name in enumerate(names):
        worst = spreads_of(values[name]).max()
        note(axis, f"au pire {percent(worst)}", (max(worst, SMALLEST), position), (7, 0), "center")
    first, last = (percent(np.median(spreads_of(values[name]))) for name in (names[0], names[-1]))
    return finish(
        figure,
        f"Même travail répété trois fois : écart médian de {first} ({french(names[0])}) "
        f"à {last} ({french(names[-1])})",
        told,
    )


@rc_context(STYLE)
def plot_repeatability(values: Values) -> Figure:
    """Three runs' spread in each fresh process, and the GPU clock's level from one to the next."""
    gpu, host = values["p95, GPU clock"], values["p95, host clock"]
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(3, 2))
    told = draw_spreads(above, {name: values[name] for name in list(ROWS)[:2]}, list(ROWS)[:2])
    above.axvline(GOAL, color=GREY, linestyle="--", linewidth=0.8)
    note(above, f"visé : {percent(GOAL, 1)}", (GOAL, -0.5), (3, -2), "top")
    medians, places = np.median(gpu, axis=1), np.arange(1, len(gpu) + 1)
    middle, half = (medians.max() + medians.min()) / 2, GOAL_MEDIANS * medians.mean() / 2
    below.axhspan(middle - half, middle + half, color=BAND, alpha=0.15, linewidth=0)
    below.plot(places, medians, "o", color=COLOURS["gpu"], markersize=4.5)
    below.yaxis.set_major_formatter(DecimalComma(useOffset=False))
    below.xaxis.get_major_locator().set_params(integer=True)
    below.set_xlabel(f"Processus, dans l'ordre des mesures (bande : {percent(GOAL_MEDIANS, 1)})")
    below.margins(y=0.15)
    below.set_ylabel("p95 (ms)")
    width = percent((medians.max() - medians.min()) / medians.mean())
    below.set_title(f"Horloge GPU, p95 médian de chaque processus : étendue {width}")
    return finish(
        figure,
        f"{len(gpu)} processus neufs : le p95 de trois runs s'écarte au pire de "
        f"{percent(spreads_of(gpu).max())} (GPU), de {percent(spreads_of(host).max())} (hôte)",
        f"{told}. Étendue des p95 médians de l'horloge GPU : {width}",
    )


def spreads_of(values: np.ndarray) -> np.ndarray:
    """Spread of each process, (processes,)."""
    return np.array([spread(row) for row in values])


def french(name: str) -> str:
    return ROWS[name][0].replace("\n", " ")


def draw_spreads(axis: Axes, values: Values, names: list[str]) -> str:
    """One row of dots per name, one dot per process, a tick at their median; say what they show."""
    told, labels, widest = [], [], 0.0
    for position, name in enumerate(names):
        found, colour = spreads_of(values[name]), ROWS[name][1]
        # Multiples of the golden section: neighbours in time lie apart.
        heights = position + 0.6 * (np.arange(1, found.size + 1) * 0.618 % 1 - 0.5)
        style = {"color": colour, "alpha": 0.7, "linestyle": "", "clip_on": False}
        inside = found > SMALLEST
        axis.plot(found[inside], heights[inside], "o", markersize=4.5, mew=0, **style)
        for height in heights[~inside]:
            axis.plot(SMALLEST, height, "<", **style)
        median = max(np.median(found), SMALLEST)
        axis.plot([median] * 2, [position - 0.35, position + 0.35], color=colour, linewidth=2)
        met = f"{int((found < LIMIT).sum())} sur {found.size}"
        labels.append(f"{ROWS[name][0]}\n< {percent(LIMIT)} : {met}")
        told.append(
            f"{french(name)} : médian {percent(np.median(found))}, au pire {percent(found.max())}, "
            f"{met} sous {percent(LIMIT)}"
        )
        widest = max(widest, found.max())
    axis.set_xscale("log")
    axis.set_xlim(SMALLEST, max(1.5, 4 * widest))
    axis.xaxis.set_major_formatter(lambda value, _: percent(value, 1))
    axis.set_xlabel("(max − min) / moyenne de trois répétitions, par processus (trait : médiane)")
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.45, -0.55)
    axis.grid(False, axis="y")
    axis.axvline(LIMIT, color=GREY, linestyle="--", linewidth=0.8)
    note(axis, f"limite : {percent(LIMIT)}", (LIMIT, -0.5), (3, -2), "top")
    return " ; ".join(told)


def note(axis: Axes, text: str, at: tuple, offset: tuple, align: str) -> None:
    style = {"fontsize": NOTE_SIZE, "color": GREY, "va": align}
    written = axis.annotate(text, at, xytext=offset, textcoords="offset points", **style)
    written.set_in_layout(False)


def finish(figure: Figure, title: str, alt: str) -> Figure:
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.set_label(f"{title}. {alt}.")
    return figure


def main() -> None:
    """Write both figures beside this file, their alternative text as PNG description."""
    for name, figure in {
        "repeatability": plot_repeatability(read("processes", "repeatability")),
        "side_by_side": plot_side_by_side(read("methods", "side_by_side")),
    }.items():
        figure.savefig(HERE / f"{name}.png", metadata={"Description": figure.get_label()})
        print(f"{name}.png: {figure.get_label()}")


if __name__ == "__main__":
    main()
