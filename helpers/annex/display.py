"""What the annex found, in French: tables and sentences."""

import math
from dataclasses import astuple

import numpy as np
import pandas as pd

from helpers.annex.accuracy import compare_accuracy
from helpers.annex.comparison import (
    CONTROL,
    FASTER,
    REFERENCE,
    SAME,
    SLOWER,
    Comparison,
    Measured,
    Ratio,
)
from helpers.annex.entries import Candidates
from helpers.annex.variants import Refusal
from helpers.annex.variants.guard import GuardReport
from helpers.display import show
from helpers.display.french import number, percent, scientific
from helpers.display.tables import markdown_table, markdown_text
from helpers.display.verdict import disturbances
from helpers.display.words import CLOCK_NAMES, NO_ACCURACY, NO_GPU_CLOCK, said
from helpers.models.accuracy import Accuracy
from helpers.stats import LatencySummary
from helpers.validation.interference import tags

Accuracies = dict[str, Accuracy | None]  # by variant; None: there are no labels

NOTHING = (
    "Une seule variante, `fp32` : rien à comparer. `-p variants all` compare tout ce que cet "
    "appareil permet, `-p variants tf32,fp16+channels_last` ce qui est nommé."
)
PARTS = {
    "fp32": "FP32 strict",
    "tf32": "FP32 stocké, TF32 dans les produits",
    "fp16": "FP16",
    "bf16": "BF16",
    "fused": "BatchNorm repliée dans les convolutions",
    "cropped": "poids qui ne voient que le bord nul retirés",
    "stem": "image complétée à 4 canaux, max-pooling par le noyau 3D",
    "epilogue": "biais, addition et ReLU dans la convolution cuDNN",
    "overlap": "raccourcis sur un second flux CUDA",
    "channels_last": "canaux en dernier (NHWC)",
    "compile": "torch.compile",
    "compile_reduce_overhead": "torch.compile, mode reduce-overhead",
    "compile_max_autotune": "torch.compile, mode max-autotune",
    "compile_frozen": "torch.compile, poids figés, canaux en dernier",
    "cudagraph": "graphe CUDA",
    "cudagraph_tuned": "graphe CUDA, algorithmes de cuDNN choisis par essai",
}
REFUSALS = {  # why a variant is not timed
    "needs_gpu": "{part} demande un GPU NVIDIA",
    "needs_capability": "{precision} demande la capacité de calcul {needed}, ce GPU a {found}",
    "no_compiler": "torch.compile ne fonctionne pas ici : {reason}",
    "no_reference": "sans la référence fp32, rien à quoi la comparer",
    "no_memory": "mémoire insuffisante sur {device}",
    "nothing_to_change": "{part} : rien à réécrire dans ce modèle",
    "not_built": "construction impossible : {error}",
    "not_checked": "vérification impossible : {error}",
    "not_scored": "exactitude impossible à mesurer : {error}",
    "recompiled": "{compilations} recompilation(s) et {graph_breaks} rupture(s) de graphe pendant "
    "les passages",
    "lower_precision": "des produits sont moins précis qu'annoncé ({products})",
    "wrong_form": "la sortie est {found}, la référence {expected}",
    "not_finite": "la sortie contient NaN ou l'infini",
    "ignores_input": "la sortie ne suit pas l'entrée : des images différentes donnent la même "
    "réponse",
    "keeps_state": "la même image, redonnée après d'autres, ne redonne pas la même réponse",
    "drift": "l'écart à la référence FP32 atteint {drift:2}, la précision n'en explique que "
    "{tolerance:2}",
    "unwatched_stream": "l'horloge GPU lit {clock_ms:3} ms, ses noyaux durent {kernel_ms:3} ms : "
    "du travail se fait sur un flux que l'appelant n'attend pas",
}
VERDICTS = {FASTER: "plus rapide", SLOWER: "plus lent", SAME: "pas de différence détectée"}
REFUSED = NO_GPU_CLOCK | {"too_few_processes": "il faut trois processus au moins, il y en a {why}"}
UNMEASURED = "non mesuré"
NOT_COMPARED = "Rien n'a été comparé : rien à tracer."
UNTRAINED = "Avec des poids tirés au sort une exactitude ne dit rien : pas de figure."


def guard_table(candidates: Candidates) -> pd.DataFrame | str:
    """What was seen of each variant before its timing, and why the others are not timed."""
    rows = {}
    for name, admitted in candidates.admitted.items():
        variant, report = admitted.variant, admitted.report
        parts = (variant.precision, *variant.parts)  # a part of the user's own has no words here
        rows[name] = {
            "Ce que c'est": ", ".join(PARTS.get(part, part) for part in parts),
            "Écart des logits": scientific(report.drift),
            "Toléré": scientific(report.tolerance),
            "Précision exécutée, d'après les noms de noyaux": _evidence(report),
            "Noyaux": number(report.kernels) if report.kernels else "–",
            "Construction (s)": number(admitted.build_s, 2),
            "Mesurée": "oui",
        }
    for name, refusal in candidates.refused.items():
        rows[name] = {"Mesurée": f"non : {refusal_sentence(refusal)}"}
    return _table(rows) if rows else NOTHING


def refusal_sentence(refusal: Refusal) -> str:
    """Why a variant is not timed."""
    code, given = astuple(refusal)
    return said(REFUSALS, code, given | {"products": _products(given.get("products", {}))})


def _evidence(report: GuardReport) -> str:
    told = f"noyaux de produit : {_products(report.products)}"
    if not report.products:
        told = "non démontrable : aucun nom de noyau ne dit de type"
    if report.unseen:
        told = f"non démontrable : le profileur n'a rien pu lire ({report.unseen})"
    if report.beyond_fp32 is not None:
        told += f" ; écart {'impossible' if report.beyond_fp32 else 'possible'} en FP32"
    return told


def _products(found: dict[str, int]) -> str:
    return ", ".join(f"{count} en {precision.upper()}" for precision, count in found.items())


def accuracy_table(accuracies: Accuracies) -> pd.DataFrame | str:
    """Accuracy of the very callables that are timed, and what changed against the reference."""
    rows = {}
    if None in accuracies.values():
        return NO_ACCURACY
    for name, found in accuracies.items():
        change = compare_accuracy(accuracies[REFERENCE], found)
        rows[name] = {
            "Exactitude": percent(found.fraction, 4),
            f"Écart à {REFERENCE} (points)": number(100 * change.difference, 2),
            "Intervalle de Wilson à 95 %": f"{percent(found.low, 4)} – {percent(found.high, 4)}",
            "Images": str(found.images),
            "Lot": str(found.batch_size),
            "Perdues / gagnées": f"{change.lost} / {change.gained}",
            "p (McNemar)": number(change.p_value, 2),
            "Plus grand écart d'un logit": scientific(change.largest_drift),
        }
    return _table(rows) if rows else ""


def by_speed(comparison: Comparison, clock: str) -> list[str]:
    """The reference and all compared entries, the fastest first; last, what this clock lacks."""
    names = dict.fromkeys(name for ratios in comparison.ratios.values() for name in ratios)
    levels = {REFERENCE: 1.0} | {n: found.mean for n, found in comparison.ratios[clock].items()}
    return sorted([REFERENCE, *names], key=lambda name: levels.get(name, math.inf))


def fastest(comparison: Comparison, clock: str) -> str | None:
    """The fastest variant of those that are shown to be faster than the reference."""
    ratios = comparison.ratios[clock]
    faster = [name for name, r in ratios.items() if r.verdict == FASTER and name != CONTROL]
    return min(faster, key=lambda name: ratios[name].mean, default=None)


def ratio_table(
    measured: Measured, comparison: Comparison, clock: str, accuracies: Accuracies
) -> pd.DataFrame:
    """All entries on one clock, the fastest first; p50 and p95 are medians over the processes."""
    rows = {}
    for name in by_speed(comparison, clock):
        found, ratio = summaries(measured, clock, name), comparison.ratios[clock].get(name)
        rows[name] = {
            "p50 (ms)": number(float(np.median([s.p50 for s in found]))) if found else "–",
            "p95 (ms)": number(float(np.median([s.p95 for s in found]))) if found else "–",
            f"Rapport à {REFERENCE}": number(ratio.mean) if ratio else "–",
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
        show(table, f"Latences, {CLOCK_NAMES[clock]}")
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
    """The tables of all clocks, to paste into a report, and below them what was not measured."""
    parts = [
        f"### {CLOCK_NAMES[clock].replace('h', 'H', 1)}\n\n"
        + markdown_table(ratio_table(measured, comparison, clock, accuracies))
        for clock in comparison.ratios
    ]
    for name, why in candidates.refused.items():
        parts.append(f"- {name} : non mesurée, {markdown_text(refusal_sentence(why))}.")
    return "\n".join([*parts, *(f"- {missing}" for missing in _missing(measured))]) + "\n"


def sentences(measured: Measured, comparison: Comparison) -> str:
    """The control first, then what was found, what varies, what is missing: a Markdown list."""
    told = []
    for clock, ratios in comparison.ratios.items():
        told += [_control(clock, ratios[CONTROL])] if CONTROL in ratios else []
        told.append(_fastest(comparison, clock))
        told += [_variable(clock, name, ratios[name]) for name in comparison.variable(clock)]
    if comparison.ratios:
        told.append(
            f"Chacun des {len(measured.processes)} processus donne un rapport ; les intervalles "
            "sont ceux de leur moyenne (Student), corrigés pour le nombre de variantes."
        )
    for clock, (code, why) in comparison.refused.items():
        reason = said(REFUSED, code, {"why": why})
        told.append(f"Pas de comparaison sur l'{CLOCK_NAMES[clock]} : {reason}.")
    seen = disturbances(tags(measured.runs(REFERENCE)), f"la comparaison (blocs de {REFERENCE})")
    return "".join(f"- {sentence}\n" for sentence in (*told, *_missing(measured), seen))


def _control(clock: str, ratio: Ratio) -> str:
    told = f"A/A, {REFERENCE} contre lui-même ({CLOCK_NAMES[clock]}) : {VERDICTS[ratio.verdict]}, "
    told += f"rapport {number(ratio.mean, 5)} ({between(ratio)})"
    if ratio.verdict == SAME:
        return f"{told}."
    return f"ATTENTION, {told} : fausse alarme ; une différence de cette taille n'est pas à croire."


def _fastest(comparison: Comparison, clock: str) -> str:
    first = fastest(comparison, clock)
    if first is None:
        return f"Aucune variante plus rapide que {REFERENCE} décelée ({CLOCK_NAMES[clock]})."
    ratio = comparison.ratios[clock][first]
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
    failed = {}
    for nth, given in enumerate(measured.processes, 1):
        for failure in given.failed.items():
            failed.setdefault(failure, []).append(str(nth))
    told = [
        f"{name} : aucun chiffre du processus {', '.join(numbers)} ({markdown_text(why)})."
        for (name, why), numbers in failed.items()
    ]
    if measured.stopped:
        done = f"{len(measured.processes)} processus sur {measured.asked}"
        told.append(f"{done} : le suivant a échoué ({markdown_text(measured.stopped)}).")
    return told


def summaries(measured: Measured, clock: str, name: str) -> list[LatencySummary]:
    """An entry's summaries on a clock, one per process that read it."""
    return [s for run in measured.runs(name) if (s := getattr(run, clock)) is not None]


def between(ratio: Ratio) -> str:
    return f"{number(ratio.low)} – {number(ratio.high)}"


def _table(rows: dict[str, dict[str, str]]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index").fillna("–").rename_axis("Variante")
