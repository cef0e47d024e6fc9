"""What the annex found, in French: tables and sentences."""

import math
from collections import Counter
from itertools import chain

import numpy as np
import pandas as pd

from helpers.annex.accuracy import compare_accuracy
from helpers.annex.comparison import (
    CLOCKS,
    CONTROL,
    MIN_PROCESSES,
    REFERENCE,
    Comparison,
    Measured,
    Ratio,
)
from helpers.annex.entries import Candidates
from helpers.annex.pauses import Paused
from helpers.annex.variants import Refusal
from helpers.annex.variants.guard import GuardReport
from helpers.display import show
from helpers.display.french import number, percent, scientific
from helpers.display.plots.style import NAMES
from helpers.display.tables import NOT_ESTIMABLE, markdown_table, markdown_text
from helpers.display.verdict import disturbances
from helpers.display.words import CLOCK_NAMES, NO_ACCURACY, NO_GPU_CLOCK, said
from helpers.models.accuracy import Accuracy
from helpers.stats import replicate_interval
from helpers.validation.interference import tags

Accuracies = dict[str, Accuracy | None]  # by variant; None: there are no labels

NOTHING = (
    "Une seule variante, `fp32` : rien à comparer. `-p variants all` compare tout ce que cet "
    "appareil permet, `-p variants tf32,fp16+channels_last` ce qui est nommé."
)
REFUSALS = {  # why a variant is not timed
    "needs_gpu": "{part} demande un GPU NVIDIA",
    "no_compiler": "torch.compile ne fonctionne pas ici : « {reason} »",
    "no_reference": "sans la référence fp32, rien à quoi la comparer",
    "nothing_to_change": "{part} : rien à réécrire dans ce modèle",
    "not_built": "construction impossible : « {error} »",
    "not_checked": "vérification impossible : « {error} »",
    "not_scored": "exactitude impossible à mesurer : « {error} »",
    "recompiled": "{compilations} recompilation(s) et {graph_breaks} rupture(s) de graphe",
    "lower_precision": "des produits sont moins précis qu'annoncé ({products})",
    "wrong_form": "la sortie est {found}, la référence {expected}",
    "not_finite": "la sortie contient NaN ou l'infini",
    "ignores_input": "des images différentes donnent la même réponse",
    "keeps_state": "la même image, redonnée après d'autres, ne redonne pas la même réponse",
    "drift": "l'écart à la référence FP32 atteint {drift:2}, tolérance {tolerance:2}",
    "unwatched_stream": "l'horloge GPU lit {clock_ms:3} ms, ses noyaux durent {kernel_ms:3} ms : "
    "du travail se fait sur un flux que l'appelant n'attend pas",
}
VERDICTS = {"faster": "plus rapide", "slower": "plus lent", "same": "pas de différence détectée"}
REFUSED = {
    code: f"{reason}, dans {{lacking}} processus sur {{processes}}"
    for code, reason in NO_GPU_CLOCK.items()
} | {"too_few_processes": "il faut trois processus au moins, il y en a {processes}"}
UNMEASURED = "non mesuré"
UNSEEN = "non visible"
NOT_COMPARED = "Rien n'a été comparé : rien à tracer."
NOTHING_LEARNT = "Exactitude absente ou proche du hasard : rien à tracer en face des latences."


def guard_table(candidates: Candidates) -> pd.DataFrame | str:
    """What was seen of each variant before its timing, and why the others are not timed."""
    rows = {}
    for name, admitted in candidates.admitted.items():
        report = admitted.report
        rows[name] = {
            "Écart des logits": scientific(report.drift),
            "Toléré": scientific(report.tolerance),
            "Produits, d'après les noms de noyaux": _evidence(report),
            "Noyaux": f"{report.profile.kernels:.0f}" if report.profile else "–",
            "Mesurée": "oui",
        }
    for name, refusal in candidates.refused.items():
        rows[name] = {"Mesurée": f"non : {refusal_sentence(refusal)}"}
    return _table(rows) if rows else NOTHING


def refusal_sentence(refusal: Refusal) -> str:
    """Why a variant is not timed."""
    code, given = refusal
    return said(REFUSALS, code, given | {"products": _products(given.get("products", {}))})


def _evidence(report: GuardReport) -> str:
    if report.unseen:
        return f"non démontrable : le profileur n'a rien pu lire (« {report.unseen} »)"
    return _products(report.products) or "non démontrable : aucun nom de noyau ne dit de type"


def _products(found: dict[str, int]) -> str:
    return ", ".join(f"{count} en {precision.upper()}" for precision, count in found.items())


def accuracy_table(accuracies: Accuracies) -> pd.DataFrame | str:
    """Accuracy of the very callables that are timed, and what changed against the reference."""
    rows = {}
    if None in accuracies.values():
        return NO_ACCURACY
    for name, found in accuracies.items():
        lost, gained, p_value = compare_accuracy(accuracies[REFERENCE], found)
        rows[name] = {
            "Exactitude": percent(found.fraction, 4),
            "Intervalle de Wilson à 95 %": f"{percent(found.low, 4)} – {percent(found.high, 4)}",
            "Images perdues / gagnées": f"{lost} / {gained}",
            "p (McNemar)": number(p_value, 2),
        }
    return _table(rows) if rows else ""


def by_speed(comparison: Comparison, clock: str) -> list[str]:
    """The reference and all compared entries, the fastest first; last, what this clock lacks."""
    names = dict.fromkeys(name for ratios in comparison.ratios.values() for name in ratios)
    levels = {REFERENCE: 1.0} | {n: found.mean for n, found in comparison.ratios[clock].items()}
    return sorted([REFERENCE, *names], key=lambda name: levels.get(name, math.inf))


def ratio_table(
    measured: Measured, comparison: Comparison, clock: str, accuracies: Accuracies
) -> pd.DataFrame:
    """All entries on one clock, the fastest first; the p95 is the median over the processes."""
    rows = {}
    for name in by_speed(comparison, clock):
        found = [s for run in measured.runs(name) if (s := getattr(run, clock))]
        ratio = comparison.ratios[clock].get(name)
        rows[name] = {
            "p95 (ms)": number(float(np.median([s.p95 for s in found]))) if found else "–",
            "Rapport moyen des p50": number(ratio.mean) if ratio else "–",
            "Intervalle à 95 %": between(ratio) if ratio else "–",
            "Écart type entre processus": percent(ratio.sd) if ratio else "–",
            "Verdict": verdict(comparison, clock, name),
            "Exactitude": percent(accuracies[name].fraction, 4) if accuracies.get(name) else "–",
        }
    return _table(rows)


def show_ratios(measured: Measured, comparison: Comparison, accuracies: Accuracies) -> None:
    """Show the table of each clock, and what is said of them."""
    for clock in comparison.ratios:
        table = ratio_table(measured, comparison, clock, accuracies)
        show(table, f"Latences, {CLOCK_NAMES[clock]}, {len(measured.processes)} processus")
    show(sentences(measured, comparison))


def verdict(comparison: Comparison, clock: str, name: str) -> str:
    """What a clock says of an entry."""
    if name == REFERENCE:
        return "référence"
    ratio = comparison.ratios[clock].get(name)
    told = VERDICTS[ratio.verdict] if ratio else UNMEASURED
    return f"{told} (témoin)" if name == CONTROL else told


def markdown(
    candidates: Candidates, measured: Measured, comparison: Comparison, accuracies: Accuracies
) -> str:
    """The tables of all clocks and the sentences, to paste into a report; what was not measured."""
    parts = [
        f"### {CLOCK_NAMES[clock].replace('h', 'H', 1)}\n\n"
        + markdown_table(ratio_table(measured, comparison, clock, accuracies))
        for clock in comparison.ratios
    ]
    for name, why in candidates.refused.items():
        parts.append(f"- {name} : non mesurée, {markdown_text(refusal_sentence(why))}.")
    return "\n".join([*parts, sentences(measured, comparison)])


def sentences(measured: Measured, comparison: Comparison) -> str:
    """The control first, then what was found, what varies, what is missing: a Markdown list."""
    told = []
    for clock, ratios in comparison.ratios.items():
        told += [_control(clock, ratios[CONTROL])] if CONTROL in ratios else []
        told.append(_fastest(comparison, clock))
        told += [_variable(clock, name, ratios[name]) for name in comparison.variable(clock)]
    for clock, (code, values) in comparison.refused.items():
        reason = said(REFUSED, code, values)
        told.append(f"Pas de comparaison sur l'{CLOCK_NAMES[clock]} : {reason}.")
    during, nouns = f"la comparaison (blocs de {REFERENCE})", ("processus", "processus")
    seen = disturbances(tags(measured.runs(REFERENCE)), during, nouns)
    return "".join(f"- {sentence}\n" for sentence in (*told, *_missing(measured), seen))


def _control(clock: str, ratio: Ratio) -> str:
    told = f"A/A, {REFERENCE} contre lui-même ({CLOCK_NAMES[clock]}) : {VERDICTS[ratio.verdict]}, "
    told += f"rapport {number(ratio.mean, 5)} ({between(ratio)})"
    if ratio.verdict == "same":
        return f"{told}."
    return f"ATTENTION, {told} : fausse alarme ; une différence de cette taille n'est pas à croire."


def _fastest(comparison: Comparison, clock: str) -> str:
    """The fastest variant of those that are shown to be faster than the reference."""
    ratios = {n: r for n, r in comparison.ratios[clock].items() if n != CONTROL}
    faster = [name for name, ratio in ratios.items() if ratio.verdict == "faster"]
    if not faster:
        return f"Aucune variante plus rapide que {REFERENCE} détectée ({CLOCK_NAMES[clock]})."
    ratio = ratios[first := min(faster, key=lambda name: ratios[name].mean)]
    return (
        f"La plus rapide ({CLOCK_NAMES[clock]}) : {first}, {number(1 / ratio.mean, 3)} fois plus "
        f"vite que {REFERENCE} (rapport {number(ratio.mean)}, {between(ratio)})."
    )


def _variable(clock: str, name: str, ratio: Ratio) -> str:
    by_trial = "cudagraph_tuned" in name  # max-autotune's choices are in the shared cache
    return (
        f"{name} varie de {percent(ratio.sd)} (écart type) d'un processus à l'autre, plus du "
        f"double des autres variantes ({CLOCK_NAMES[clock]})"
        f"{' : algorithmes choisis par essai, dans chaque processus' if by_trial else ''}."
    )


def _missing(measured: Measured) -> list[str]:
    """Processes that gave nothing, and variants without a figure from some of them."""
    failures, done = (given.failed.items() for given in measured.processes), len(measured.processes)
    told = [
        f"{name} : sans chiffre de {count} processus sur {done} (« {markdown_text(why)} »)."
        for (name, why), count in Counter(chain.from_iterable(failures)).items()
    ]
    if measured.stopped:
        told.append(f"Le processus {done + 1} a échoué (« {markdown_text(measured.stopped)} »).")
    return told


def between(ratio: Ratio) -> str:
    return f"{number(ratio.low)} – {number(ratio.high)}"


@show.register
def _(paused: Paused, caption: str = "") -> None:
    show(pause_table(paused), caption)
    show("".join(f"- {missing}\n" for missing in _missing(paused)))


def pause_table(paused: Paused) -> pd.DataFrame:
    """p50 and p95 after each pause: medians over the processes, with the interval over these."""
    rows = {}
    for key in ((name, pause) for name in paused.names for pause in paused.pauses_ms):
        idle = _middle(paused.of(*key, "idle_ms"))
        rows[key[0], plain(key[1])] = row = {"Pause réelle (ms)": idle}
        for clock in (clock for clock in CLOCKS if paused.of(*key, f"{clock}_ms")):
            for q in (50, 95):
                values = paused.level(*key, clock, q / 100)
                told = " – ".join(map(number, process_interval(values))) or NOT_ESTIMABLE
                told = f"{number(float(np.median(values)))} ({told})" if values else told
                row[f"p{q} {NAMES[clock]} (ms)"] = told
        row["SM (MHz)"] = _middle(paused.of(*key, "sm_mhz"))
        states = sorted({state for of in paused.of(*key, "p_state") for state in of})
        row["État"] = ", ".join(f"P{state}" for state in states) or UNSEEN
        row["n"] = " · ".join(str(len(values)) for values in paused.of(*key, "host_ms"))
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("–")
    return table.rename_axis(["Variante", "Pause (ms)"])


def plain(pause_ms: float) -> str:
    return f"{pause_ms:g}".replace(".", ",")


def _middle(values: list[list[float]]) -> str:
    if not values:
        return UNSEEN
    low, middle, high = np.quantile(np.concatenate(values), (0, 0.5, 1)).tolist()
    return number(middle) + f" ({number(low)} – {number(high)})" * (low < high)


def process_interval(values: list[float]) -> tuple[float, ...]:
    return replicate_interval(values) if len(values) >= MIN_PROCESSES else ()


def _table(rows: dict[str, dict[str, str]]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index").fillna("–").rename_axis("Variante")
