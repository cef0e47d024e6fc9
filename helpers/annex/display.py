"""What the annex found, in French: tables and sentences."""

import math

import numpy as np
import pandas as pd

from helpers.annex.comparison import CONTROL, REFERENCE, Comparison, Measured, Ratio
from helpers.annex.entries import Candidates
from helpers.display.french import number, percent, scientific
from helpers.display.tables import markdown_table, markdown_text
from helpers.display.words import CLOCK_NAMES, NO_GPU_CLOCK, said
from helpers.models.accuracy import Accuracy, compare_accuracy

Accuracies = dict[str, Accuracy]  # by variant

NOTHING = (
    "Une seule variante, `fp32` : rien à comparer. `-p variants all` compare tout ce que cet "
    "appareil permet, `-p variants tf32,fp16+channels_last` ce qui est nommé."
)
VERDICTS = {"faster": "plus rapide", "slower": "plus lent", "same": "pas de différence détectée"}
REFUSED = NO_GPU_CLOCK | {"too_few_processes": "il faut trois processus au moins ({why})"}
UNMEASURED = "non mesuré"


def guard_table(candidates: Candidates) -> pd.DataFrame | str:
    """What was seen of each variant before its timing, and why the others are not timed."""
    rows = [
        {
            "Variante": name,
            "Ce que c'est": found.variant.french,
            "Écart des logits": scientific(found.report.drift),
            "Toléré": scientific(found.report.tolerance),
            "Précision exécutée, d'après les noms de noyaux": found.report.precision_evidence,
            "Noyaux": f"{found.report.kernels:.4g}".replace(".", ",")
            if found.report.kernels
            else "–",
            "Construction (s)": number(found.build_s, 2),
            "Mesurée": "oui",
        }
        for name, found in candidates.admitted.items()
    ]
    for name, reason in candidates.refused.items():
        rows.append(dict.fromkeys(rows[0] if rows else (), "–"))
        rows[-1] |= {"Variante": name, "Mesurée": f"non : {reason}"}
    return pd.DataFrame(rows).set_index("Variante") if rows else NOTHING


def accuracy_table(accuracies: Accuracies) -> pd.DataFrame | str:
    """Accuracy of the very callables that are timed, and what changed against the reference."""
    rows = []
    for name, found in accuracies.items():
        change = compare_accuracy(accuracies[REFERENCE], found)
        rows.append(
            {
                "Variante": name,
                "Exactitude": percent(found.fraction, 4),
                f"Écart à {REFERENCE} (points)": number(100 * change.difference, 2),
                "Intervalle de Wilson à 95 %": _percents(found.low, found.high),
                "Images": str(found.images),
                "Lot": str(found.batch_size),
                "Perdues / gagnées": f"{change.lost} / {change.gained}",
                "p (McNemar)": number(change.p_value, 2),
                "Plus grand écart d'un logit": scientific(change.largest_drift),
            }
        )
    return pd.DataFrame(rows).set_index("Variante") if rows else ""


def by_speed(comparison: Comparison, clock: str) -> list[str]:
    """The reference and all compared entries, the fastest first; last, what this clock lacks."""
    names = dict.fromkeys(name for ratios in comparison.ratios.values() for name in ratios)
    levels = {name: found.ratio for name, found in comparison.ratios[clock].items()}
    levels[REFERENCE] = 1.0
    return sorted([REFERENCE, *names], key=lambda name: levels.get(name, math.inf))


def fastest(comparison: Comparison, clock: str) -> str | None:
    """The fastest variant of those that are shown to be faster than the reference."""
    ratios = comparison.ratios[clock]
    faster = [name for name, r in ratios.items() if r.verdict == "faster" and name != CONTROL]
    return min(faster, key=lambda name: ratios[name].ratio, default=None)


def ratio_table(
    measured: Measured, comparison: Comparison, clock: str, accuracies: Accuracies
) -> pd.DataFrame:
    """All entries on one clock, the fastest first; p50 and p95 are medians over the processes."""
    rows = []
    for name in by_speed(comparison, clock):
        ratio, scored = comparison.ratios[clock].get(name), accuracies.get(name)
        rows.append(
            {
                "Variante": name,
                **{f"{q} (ms)": level(measured, clock, name, q) for q in ("p50", "p95")},
                f"Rapport à {REFERENCE}": number(ratio.ratio) if ratio else "–",
                "Intervalle à 95 %": between(ratio) if ratio else "–",
                "Écart type entre processus": percent(ratio.sd) if ratio else "–",
                "Verdict": verdict(comparison, clock, name),
                "Exactitude": percent(scored.fraction, 4) if scored else "–",
            }
        )
    return pd.DataFrame(rows).set_index("Variante")


def verdict(comparison: Comparison, clock: str, name: str) -> str:
    """What a clock says of an entry; the control's says so."""
    if name == REFERENCE:
        return "référence"
    ratio = comparison.ratios[clock].get(name)
    told = VERDICTS[ratio.verdict] if ratio else UNMEASURED
    return f"{told} (témoin)" if name == CONTROL else told


def markdown(
    measured: Measured, comparison: Comparison, accuracies: Accuracies, refused: dict
) -> str:
    """The tables of all clocks, to paste into a report, and below them what was not measured."""
    parts = [
        f"### {CLOCK_NAMES[clock].capitalize()}\n\n"
        + markdown_table(ratio_table(measured, comparison, clock, accuracies))
        for clock in comparison.ratios
    ]
    lines = [
        f"- {markdown_text(name)} : non mesurée, {markdown_text(why)}"
        for name, why in refused.items()
    ]
    return "\n".join([*parts, *lines, *(f"- {told}" for told in _missing(measured))]) + "\n"


def sentences(measured: Measured, comparison: Comparison) -> list[str]:
    """The control first, then what was found, what varies, and what is missing (Markdown)."""
    told = []
    for clock, ratios in comparison.ratios.items():
        told += [_control(clock, ratios[CONTROL]), _fastest(comparison, clock)]
        told += [_variable(clock, name, ratios[name]) for name in comparison.variable(clock)]
    if comparison.ratios:
        told.append(
            f"Chacun des {comparison.processes} processus donne un rapport ; les intervalles sont "
            "ceux de leur moyenne (Student), corrigés pour le nombre de variantes."
        )
    for clock, (code, why) in comparison.refused.items():
        reason = said(REFUSED, code, {"why": why})
        told.append(f"Pas de comparaison sur l'{CLOCK_NAMES[clock]} : {reason}.")
    return [*told, *_missing(measured)]


def _control(clock: str, ratio: Ratio) -> str:
    told = f"A/A, {REFERENCE} contre lui-même ({CLOCK_NAMES[clock]}) : {VERDICTS[ratio.verdict]}, "
    told += f"rapport {number(ratio.ratio, 5)} ({between(ratio)})"
    if ratio.verdict == "same":
        return f"{told}."
    return f"ATTENTION, {told} : fausse alarme ; une différence de cette taille n'est pas à croire."


def _fastest(comparison: Comparison, clock: str) -> str:
    first = fastest(comparison, clock)
    if first is None:
        return f"Aucune variante plus rapide que {REFERENCE} décelée ({CLOCK_NAMES[clock]})."
    ratio = comparison.ratios[clock][first]
    return (
        f"La plus rapide ({CLOCK_NAMES[clock]}) : {first}, {number(1 / ratio.ratio, 3)} fois plus "
        f"vite que {REFERENCE} (rapport {number(ratio.ratio)}, {between(ratio)})."
    )


def _variable(clock: str, name: str, ratio: Ratio) -> str:
    tuned = "tuned" in name or "autotune" in name
    why = " : algorithmes choisis par essai, chaque processus fait son choix" if tuned else ""
    return (
        f"{name} varie de {percent(ratio.sd)} (écart type) d'un processus à l'autre, plus du "
        f"double des autres variantes ({CLOCK_NAMES[clock]}){why}."
    )


def _missing(measured: Measured) -> list[str]:
    """Processes that gave nothing and variants without a figure from some of them."""
    told = []
    if measured.stopped:
        told.append(
            f"{len(measured.processes)} processus sur {measured.asked} : le suivant s'est arrêté "
            f"({markdown_text(measured.stopped)})."
        )
    for name, reasons in measured.failed.items():
        where, why = ", ".join(map(str, reasons)), next(iter(reasons.values()))
        told.append(f"{name} : aucun chiffre du processus {where} ({markdown_text(why)}).")
    return told


def level(measured: Measured, clock: str, name: str, figure: str) -> str:
    """Median over the processes of a figure (ms)."""
    found = summaries(measured, clock, name)
    return number(float(np.median([getattr(s, figure) for s in found]))) if found else "–"


def summaries(measured: Measured, clock: str, name: str) -> list:
    """An entry's summaries on a clock, one per process that read it."""
    return [s for run in measured.runs(name) if (s := getattr(run, clock)) is not None]


def between(ratio: Ratio) -> str:
    return f"{number(ratio.low)} – {number(ratio.high)}"


def _percents(*fractions: float) -> str:
    return " – ".join(percent(fraction, 4) for fraction in fractions)
