"""What the annex found, in French: tables and sentences."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from helpers.annex.accuracy import compare_accuracy
from helpers.annex.comparison import TOO_FEW_ROUNDS, Comparison, Interleaved
from helpers.annex.comparison.stats import FASTER, MIN_ROUNDS, SAME, Ratio
from helpers.annex.variants.guard import Admitted
from helpers.display.french import number, percent, scientific
from helpers.display.tables import markdown_table, markdown_text
from helpers.display.verdict import CLOCK_NAMES, NO_GPU_CLOCK, disturbances
from helpers.models.accuracy import Accuracy
from helpers.stats import percentile

Accuracies = dict[str, Accuracy]  # by variant

NOTHING = (
    "Une seule variante, `fp32` : rien à comparer. `-p variants all` compare tout ce que cet "
    "appareil permet, `-p variants tf32,fp16+channels_last` ce qui est nommé."
)
CLOSE = "dans l'écart entre copies"
REFUSED = {TOO_FEW_ROUNDS: f"moins de {MIN_ROUNDS} tours : augmenter runs ou measure_iters"}
REFUSED |= NO_GPU_CLOCK
REFERENCE = "fp32"


def guard_table(admitted: dict[str, Admitted], refused: dict[str, str]) -> pd.DataFrame:
    """What was seen of each variant before its timing, and why the others are not timed."""
    rows = [
        {
            "Variante": name,
            "Ce que c'est": found.variant.french,
            "Écart des logits": scientific(found.report.drift),
            "Toléré": scientific(found.report.tolerance),
            "Précision exécutée, d'après les noms de noyaux": found.report.precision_evidence,
            "Noyaux": _count(found.report.kernels),
            "Construction (s)": number(found.build_s, 2),
            "Mesurée": "oui",
        }
        for name, found in admitted.items()
    ]
    for name, reason in refused.items():
        rows.append(dict.fromkeys(rows[0] if rows else ("Variante",), "–"))
        rows[-1] |= {"Variante": name, "Mesurée": f"non : {reason}"}
    return pd.DataFrame(rows, columns=None if rows else ["Variante"]).set_index("Variante")


def _count(kernels: float | None) -> str:
    """Kernels per forward: whole, unless forwards differ."""
    return f"{kernels:.4g}".replace(".", ",") if kernels else "–"


def accuracy_table(accuracies: Accuracies) -> pd.DataFrame:
    """Accuracy of the very callables that are timed, and what changed against the reference."""
    rows = []
    for name, found in accuracies.items():
        bounds = f"{percent(found.low, 4)} – {percent(found.high, 4)}"
        change = compare_accuracy(accuracies[REFERENCE], found)
        rows.append(
            {
                "Variante": name,
                "Exactitude": percent(found.fraction, 4),
                f"Écart à {REFERENCE} (points)": number(100 * change.difference, 2),
                "Intervalle de Wilson à 95 %": bounds,
                "Images": str(found.images),
                "Lot": str(found.batch_size),
                "Perdues / gagnées": f"{change.lost} / {change.gained}",
                "p (McNemar)": number(change.p_value, 2),
                "Plus grand écart d'un logit": scientific(change.largest_drift),
            }
        )
    return pd.DataFrame(rows).set_index("Variante")


def verdict_of(comparison: Comparison, clock: str, name: str) -> str:
    """The verdict, and whether the difference is one that the place in memory explains."""
    if name == comparison.reference:
        return "référence"
    if name not in comparison.ratios[clock]:
        return "non mesuré"
    verdict = comparison.ratios[clock][name].verdict
    if name in comparison.controls:
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
    names = (n for n in by_speed(comparison, clock) if n not in comparison.controls)
    return next((name for name in names if verdict_of(comparison, clock, name) == FASTER), None)


def comparison_table(
    measured: Interleaved, comparison: Comparison, clock: str, accuracies: Accuracies | None = None
) -> pd.DataFrame:
    """All entries on one clock, the fastest first; latencies (ms) over all runs."""
    rows = []
    for name in by_speed(comparison, clock):
        ratio = comparison.ratios[clock].get(name)
        scored = (accuracies or {}).get(name)
        rows.append(
            {
                "Variante": name,
                **_latencies(measured, clock, name),
                f"Rapport à {comparison.reference}": number(ratio.ratio) if ratio else "–",
                "Intervalle à 95 %": _between(ratio) if ratio else "–",
                "Décelable": percent(ratio.detectable) if ratio else "–",
                "Verdict": verdict_of(comparison, clock, name),
                "Exactitude": percent(scored.fraction, 4) if scored else "–",
            }
        )
    return pd.DataFrame(rows).set_index("Variante")


def comparison_markdown(
    measured: Interleaved,
    comparison: Comparison,
    accuracies: Accuracies,
    refused: dict[str, str] | None = None,
) -> str:
    """The tables of all clocks, to paste into a report, and below them what was not measured."""
    parts = [
        f"### {CLOCK_NAMES[clock].capitalize()}\n\n"
        + markdown_table(comparison_table(measured, comparison, clock, accuracies))
        for clock in comparison.ratios
    ]
    left_out = {**(refused or {}), **measured.failed}
    lines = [f"- {markdown_text(n)} : non mesurée, {markdown_text(w)}" for n, w in left_out.items()]
    return "\n".join([*parts, *lines]) + "\n"


def comparison_sentences(measured: Interleaved, comparison: Comparison) -> list[str]:
    """The controls first, then what was detectable, found, and not measured (Markdown)."""
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
    for name, why in measured.failed.items():
        sentences.append(f"Non mesurée : {markdown_text(name)} ({markdown_text(why)}).")
    sentences.append(disturbances(measured.observed, "la comparaison"))
    return sentences


def _control(clock: str, ratio: Ratio, reference: str) -> str:
    told = f"A/A, {reference} contre lui-même ({clock}) : {ratio.verdict}, rapport "
    told += f"{number(ratio.ratio, 5)} ({_between(ratio)})"
    if ratio.verdict == SAME:
        return f"{told}."
    return f"ATTENTION, {told} : fausse alarme ; une différence de cette taille n'est pas à croire."


def _placement(name: str, clock: str, comparison: Comparison) -> str:
    if clock not in comparison.placement:
        return (
            f"Aucune copie du modèle mesurée ({name}) : une différence de quelque 2 % peut ne pas "
            "venir de la variante."
        )
    gap, ratios = percent(comparison.placement[clock]), comparison.ratios[clock]
    close = [n for n in ratios if verdict_of(comparison, clock, n).endswith(f"({CLOSE})")]
    copies = sum(n in ratios for n in comparison.copies)
    told = (
        f"Deux copies du même modèle peuvent différer de {gap} ({name}, limite à 95 % d'après "
        f"{copies} {'copie' if copies == 1 else 'copies'})"
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
    return {f"p{q} (ms)": number(percentile(samples, q / 100)) for q in (50, 95)}


def _between(ratio: Ratio) -> str:
    return f"{number(ratio.low)} – {number(ratio.high)}"


def _range(fractions: Iterable[float]) -> str:
    low, high = percent(min(fractions)), percent(max(fractions))
    return low if low == high else f"{low} à {high}"
