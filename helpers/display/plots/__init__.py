"""The day's figures: French labels with units, one colour per clock, the finding in the title.

Each function returns a Figure whose label is its alternative text. Values that would flatten a
curve leave the frame and are counted.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.bench_latency import Run
from helpers.cifar10 import Cifar10
from helpers.display.colours import BAND, COLOURS, GREY, MARKED, P95
from helpers.display.french import number, percent
from helpers.display.plots import style
from helpers.display.plots.style import NAMES, STYLE, handle
from helpers.display.tables import against_limit, summaries_of
from helpers.display.words import labels
from helpers.validation import Verdict
from helpers.validation.interference import RunTags, untagged

WARMUP = 0.15  # width of a run's warm-up on the axis of runs, on which a run is 1 wide
STEP = 1 + WARMUP + 0.08
MOST_NAMED = 6  # runs with a figure of their own; more would hide the curves
SHOWN_RUNS = 12  # ticks


@rc_context(STYLE)
def plot_images(data: Cifar10, count: int = 20) -> Figure:
    """The first test images in rows of ten, each with the name of its class."""
    names = [data.class_names[label] for label in data.test_labels[:count]]
    rows = -(-len(names) // 10)
    figure = style.new_figure(1.1 * rows + 0.4)
    for place, name in enumerate(names):
        axis = figure.add_subplot(rows, 10, place + 1)
        axis.imshow(data.test_images[place], interpolation="nearest")
        axis.set_title(name, loc="center", fontsize=8)
        axis.set_axis_off()
    alt = f"Grille de {len(names)} images avec leur classe : {', '.join(dict.fromkeys(names))}."
    return style.finish(figure, "Exemples d'images (32 × 32 pixels)", alt, data.name)


@rc_context(STYLE)
def plot_over_time(runs: Sequence[Run], dataset: str, seen: Sequence[RunTags] = ()) -> Figure:
    """Latencies (ms) run after run, one row per clock; blocks tagged for that clock are shaded."""
    clocks = summaries_of(runs)
    figure, axes = style.clock_axes(clocks, "y", "Latence (ms)", 2.0 * len(clocks) + 1.1, True)
    told = [_draw_over_time(axes[clock], clock, clocks[clock], runs, seen) for clock in clocks]
    if codes := [code for tags in seen for code in tags.codes]:
        told.append(f"blocs signalés : {labels(codes)}")
    last, named = figure.axes[-1], np.arange(0, len(runs), -(-len(runs) // SHOWN_RUNS))
    last.set_xticks(named * STEP + 0.5, [f"Run {run + 1}" for run in named])
    last.set_xlim(-WARMUP - 0.02, len(runs) * STEP - WARMUP)
    last.set_xlabel("Passages de chaque run, dans l'ordre de la mesure")
    handles = [handle(P95, "p95", linewidth=2.2), handle(GREY, "échauffement")]
    handles += [handle(MARKED, "bloc signalé", linewidth=6, alpha=0.25)]
    figure.legend(handles=handles, loc="outside lower right", ncols=3)
    alt = f"Latence en ms, {len(runs)} runs l'un après l'autre : {_p95(clocks)} ; "
    title = f"Latence au fil des passages : {_p95(clocks)}"
    return style.finish(figure, title, f"{alt}{' ; '.join(told)}.", dataset)


def _draw_over_time(axis: Axes, clock: str, summaries: dict, runs: Sequence[Run], seen) -> str:
    """One clock's row; return what lies outside its frame."""
    samples = [summary.samples_ms for summary in summaries.values()]
    axis.set_ylim(style.frame_of(samples))
    axis.grid(False, axis="x")
    note = style.outside(samples, axis.get_ylim())
    for n, summary in summaries.items():
        start, run = (n - 1) * STEP, runs[n - 1]
        x = start + np.arange(1, summary.n + 1) / summary.n
        axis.plot(x, summary.samples_ms, color=COLOURS[clock], linewidth=0.7)
        axis.plot([start + 0.94, start + 1.04], [summary.p95] * 2, color=P95, linewidth=2.2)
        if clock == "host":  # the warm-up is timed by the host
            early = np.linspace(start - WARMUP, start, run.warmup.samples_ms.size)
            axis.plot(early, run.warmup.samples_ms, color=GREY, linewidth=0.7)
        if seen:
            look = {"color": MARKED, "alpha": 0.25, "transform": axis.get_xaxis_transform()}
            tagged = ~untagged(run, seen[n - 1], clock)
            axis.fill_between(x, 0, 1, where=tagged, linewidth=0, **look)
    axis.set_title(note, **style.NOTE)
    return f"horloge {NAMES[clock]} : {note or 'toutes les valeurs dans le cadre'}"


@rc_context(STYLE)
def plot_distribution(runs: Sequence[Run], dataset: str) -> Figure:
    """Empirical distribution of each run's latencies (ms), its mean and p95 named, per clock."""
    clocks = summaries_of(runs)
    figure, axes = style.clock_axes(clocks, "x", "Latence (ms)", 4.6)
    for clock, axis in axes.items():
        samples = [summary.samples_ms for summary in clocks[clock].values()]
        axis.set(xlim=style.frame_of(samples), ylim=(0, 102), yticks=(0, 25, 50, 75, 95))
        for run, found in clocks[clock].items():
            x = np.sort(np.append(found.samples_ms, found.min))
            label = f"run {run} : moy. {number(found.mean)} · p95 {number(found.p95)} ms"
            look = {"color": COLOURS[clock], "linewidth": 1.4, "drawstyle": "steps-post"}
            look["linestyle"] = ("-", (0, (5, 1.5)), (0, (1, 0.8)))[(run - 1) % 3]
            axis.plot(x, np.linspace(0, 100, x.size), label=label, **look)
        axis.set_title(style.outside(samples, axis.get_xlim()), **style.NOTE)
        if len(runs) <= MOST_NAMED:
            axis.legend(loc="upper left", bbox_to_anchor=(0, -0.15))  # below: it hides no curve
    figure.axes[0].set_ylabel("Part des passages\nau plus à cette latence (%)")
    alt = f"Fonction de répartition des latences de {len(runs)} runs : {_p95(clocks)}."
    return style.finish(figure, f"Distribution des latences : {_p95(clocks)}", alt, dataset)


@rc_context(STYLE)
def plot_p95_runs(verdict: Verdict, dataset: str) -> Figure:
    """p95 (ms) of each run, so of each process, and where a further session's would land.

    The window is as high as the criterion allows and centred between the extreme runs: it holds
    all of them exactly when (max − min) / mean is at most the limit.
    """
    figure, axes = style.clock_axes(verdict.clocks, "y", "p95 (ms)", 3.6)
    limit, findings = verdict.max_p95_spread, []
    for name, axis in axes.items():
        p95, colour = np.array(verdict.clocks[name].p95_ms), COLOURS[name]
        middle, half = (p95.max() + p95.min()) / 2, limit * p95.mean() / 2
        axis.axhspan(middle - half, middle + half, color=BAND, alpha=0.15, linewidth=0)
        axis.plot(np.arange(1, p95.size + 1), p95, "D", color=colour)
        for at, value in enumerate(p95, start=1):
            shown = number(value) if p95.size <= MOST_NAMED else ""
            axis.annotate(shown, (at, value), (8, 4), textcoords="offset points")
        after = 1.15 * p95.size + 1  # room for its label
        if further := verdict.clocks[name].further:
            look = {"color": colour, "linewidth": 6, "alpha": 0.35, "solid_capstyle": "butt"}
            axis.plot([after, after], further, **look)
        else:
            axis.annotate("inconnu", (after, middle), ha="center", color=GREY)
        named = np.arange(1, p95.size + 1, -(-p95.size // SHOWN_RUNS))
        axis.set_xticks([*named, after], [*map(str, named), "session\nrefaite"])
        axis.set(xlim=(0.5, after + 0.6), xlabel="Run")
        axis.margins(y=0.25)
        told = f"écart {against_limit(verdict.clocks[name], limit)}"
        axis.set_title(told, **style.NOTE)
        findings.append(f"horloge {NAMES[name]} {', '.join(map(number, p95))} ms, {told}")
    window = f"fenêtre permise : {percent(limit)} de la moyenne"
    handles = [handle(BAND, window, alpha=0.3, linewidth=8)]
    handles += [handle(GREY, "session refaite, intervalle à 95 %", linewidth=6, alpha=0.35)]
    figure.legend(handles=handles, loc="outside lower right", ncols=2)
    title = "Le p95 de chaque run tient-il dans la fenêtre permise ?"
    return style.finish(figure, title, f"p95 de chaque run : {' ; '.join(findings)}.", dataset)


def _p95(clocks: dict[str, dict]) -> str:
    """« p95 GPU 1,303 à 1,310 ms, hôte 1,947 ms »."""
    p95 = {clock: [s.p95 for s in found.values()] for clock, found in clocks.items()}
    ends = {clock: dict.fromkeys(map(number, (min(p), max(p)))) for clock, p in p95.items()}
    return "p95 " + ", ".join(f"{NAMES[c]} {' à '.join(shown)} ms" for c, shown in ends.items())
