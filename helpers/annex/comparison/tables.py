"""What a comparison found, in French: sentences, and tables that can be pasted into a report."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from helpers.annex.comparison import TOO_FEW_ROUNDS, Comparison, Interleaved
from helpers.annex.comparison.stats import FASTER, MIN_ROUNDS, SAME, Ratio
from helpers.display.french import number, percent
from helpers.display.verdict import CLOCK_NAMES, NO_GPU_CLOCK, disturbances
from helpers.stats import percentile

Accuracies = dict[str, Any]  # helpers.models.accuracy.Accuracy by variant: fraction, low, high

CLOSE = "dans l'écart entre copies"
REFUSED = {TOO_FEW_ROUNDS: f"moins de {MIN_ROUNDS} tours : augmenter runs ou measure_iters"}
REFUSED |= NO_GPU_CLOCK


def verdict_of(comparison: Comparison, clock: str, name: str) -> str:
    """The verdict, and whether the difference is one that the place in memory explains."""
    if name == comparison.reference:
        return "référence"
    if name not in comparison.ratios[clock]:
        return "non mesuré"
    verdict = comparison.ratios[clock][name].verdict
    if name in (comparison.control, *comparison.copies):
        return f"{verdict} (témoin)"
    if verdict != SAME and comparison.within_placement(clock, name):
        return f"{verdict} ({CLOSE})"
    return verdict


def by_speed(comparison: Comparison, clock: str) -> list[str]:
    """All entries, the fastest first, those that this clock has not measured last."""
    names = dict.fromkeys(name for ratios in comparison.ratios.values() for name in ratios)
    levels = {name: found.ratio for name, found in comparison.ratios[clock].items()}
    levels[comparison.reference] = 1.0
    return sorted([comparison.reference, *names], key=lambda name: levels.get(name, math.inf))


def fastest(comparison: Comparison, clock: str) -> str | None:
    """The fastest variant that is one: no control, and faster than copies of one model can be."""
    own = (comparison.control, *comparison.copies)
    return next(
        (
            name
            for name in by_speed(comparison, clock)
            if name not in own and verdict_of(comparison, clock, name) == FASTER
        ),
        None,
    )


def comparison_table(
    measured: Interleaved, comparison: Comparison, clock: str, accuracies: Accuracies | None = None
) -> pd.DataFrame:
    """All entries on one clock, the fastest first; latencies (ms) over all runs.

    Accuracies stand without their intervals, which `annex.accuracy_table` and `report_table` have.

    Raises
    ------
    ValueError
        There are no ratios on this clock; the message says why.
    """
    if clock not in comparison.ratios:
        raise ValueError(
            f"nothing was compared on clock {clock!r} ({comparison.refused.get(clock)}): "
            f"ask for one of {', '.join(comparison.ratios) or 'none'}"
        )
    rows = []
    for name in by_speed(comparison, clock):
        ratio = comparison.ratios[clock].get(name)
        rows.append(
            {
                "Variante": name,
                **_latencies(measured, clock, name),
                f"Rapport à {comparison.reference}": number(ratio.ratio) if ratio else "–",
                "Intervalle à 95 %": _between(ratio) if ratio else "–",
                "Décelable": percent(ratio.detectable) if ratio else "–",
                "Verdict": verdict_of(comparison, clock, name),
                **_accuracy(accuracies, name, comparison, interval=False),
            }
        )
    return pd.DataFrame(rows).set_index("Variante")


def report_table(
    measured: Interleaved, comparison: Comparison, accuracies: Accuracies | None = None
) -> pd.DataFrame:
    """One row per entry with both clocks, by speed on the first there is; for a report."""
    clocks = list(comparison.ratios)
    names = by_speed(comparison, clocks[0]) if clocks else list(measured.runs)
    rows = []
    for name in names:
        row = {"Variante": name}
        for clock in clocks:
            short = CLOCK_NAMES[clock].removeprefix("horloge ")
            ratio = comparison.ratios[clock].get(name)
            latencies = _latencies(measured, clock, name)
            row |= {f"{key}, {short}": value for key, value in latencies.items()}
            row[f"Rapport, {short}"] = (
                f"{number(ratio.ratio)} ({_between(ratio)})" if ratio else "–"
            )
            row[f"Verdict, {short}"] = verdict_of(comparison, clock, name)
        rows.append(row | _accuracy(accuracies, name, comparison))
    return pd.DataFrame(rows).set_index("Variante")


def markdown_table(frame: pd.DataFrame) -> str:
    """A table as Markdown, its index as first column; a bar inside a cell would end it."""
    frame = frame.reset_index()
    lines = [frame.columns, ["---"] * frame.shape[1], *frame.itertuples(index=False)]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def comparison_sentences(measured: Interleaved, comparison: Comparison) -> list[str]:
    """The controls first, then what was detectable, found, and not measured."""
    sentences = []
    for clock, ratios in comparison.ratios.items():
        name = CLOCK_NAMES[clock]
        sentences.append(_control(name, ratios[comparison.control], comparison.reference))
        sentences.append(_placement(name, clock, comparison))
        found = [ratio.detectable for ratio in ratios.values()]
        sentences.append(
            f"Plus petite différence décelable ({name}, 80 % de chance, corrigée pour "
            f"{len(ratios)} comparaisons) : {_range(found)} selon la variante."
        )
        sentences.append(_fastest(name, clock, comparison))
    for clock, why in comparison.refused.items():
        sentences.append(f"Pas de comparaison sur l'{CLOCK_NAMES[clock]} : {REFUSED[why]}.")
    sentences += [f"Non mesurée : {name} ({why})." for name, why in measured.failed.items()]
    sentences.append(disturbances(measured.observed, "la comparaison"))
    return sentences


def _control(clock: str, ratio: Ratio, reference: str) -> str:
    told = f"A/A, {reference} contre lui-même ({clock}) : {ratio.verdict}, rapport "
    told += f"{number(ratio.ratio, 5)} ({_between(ratio)})"
    if ratio.verdict == SAME:
        return f"{told}."
    return (
        f"ATTENTION, {told} : c'est une fausse alarme ; ne croire ici aucune différence pareille."
    )


def _placement(name: str, clock: str, comparison: Comparison) -> str:
    if clock not in comparison.placement:
        return (
            f"Aucune copie du modèle mesurée ({name}) : une différence de quelque 2 % peut venir "
            "de la place en mémoire."
        )
    gap, ratios = percent(comparison.placement[clock]), comparison.ratios[clock]
    close = [n for n in ratios if verdict_of(comparison, clock, n).endswith(f"({CLOSE})")]
    copies = [n for n in comparison.copies if n in ratios]
    told = (
        f"Le même modèle ailleurs en mémoire peut différer de {gap} ({name}, limite à 95 % d'après "
        f"{len(copies)} {'copie' if len(copies) == 1 else 'copies'})"
    )
    if close:
        return f"{told} : les différences de {', '.join(close)} n'en dépassent pas l'effet."
    return f"{told} ; aucune différence trouvée n'est plus petite."


def _fastest(name: str, clock: str, comparison: Comparison) -> str:
    first = fastest(comparison, clock)
    if first is None:
        return f"Aucune variante plus rapide que {comparison.reference} décelée ({name})."
    ratio = comparison.ratios[clock][first]
    return (
        f"La plus rapide ({name}) : {first}, {number(1 / ratio.ratio, 3)} fois plus vite que "
        f"{comparison.reference} (rapport {number(ratio.ratio)}, {_between(ratio)})."
    )


def _latencies(measured: Interleaved, clock: str, name: str) -> dict[str, str]:
    summaries = [getattr(result, clock) for result in measured.runs[name]]
    if None in summaries:
        return {"p50 (ms)": "–", "p95 (ms)": "–"}
    samples = np.concatenate([summary.samples_ms for summary in summaries])
    return {
        "p50 (ms)": number(percentile(samples, 0.50)),
        "p95 (ms)": number(percentile(samples, 0.95)),
    }


def _accuracy(
    accuracies: Accuracies | None, name: str, comparison: Comparison, interval: bool = True
) -> dict[str, str]:
    """The accuracy of what was timed; the A/A control is the reference itself."""
    if accuracies is None:
        return {}
    name = comparison.reference if name == comparison.control else name
    if name not in accuracies:
        return {"Exactitude": "–"}
    found = accuracies[name]
    between = f" ({percent(found.low, 4)} – {percent(found.high, 4)})" if interval else ""
    return {"Exactitude": f"{percent(found.fraction, 4)}{between}"}


def _between(ratio: Ratio) -> str:
    return f"{number(ratio.low)} – {number(ratio.high)}"


def _range(fractions: Iterable[float]) -> str:
    low, high = percent(min(fractions)), percent(max(fractions))
    return low if low == high else f"{low} à {high}"
