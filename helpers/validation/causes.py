"""Why runs differ, and what bounds a forward: evidence put into French sentences."""

from collections.abc import Sequence

import numpy as np

from helpers.bench_latency import LatencyResult
from helpers.clocks.profiling import ForwardProfile
from helpers.display.french import number, percent
from helpers.stats import LatencySummary, chance_of_failing, find_shift, quantile_interval

LAUNCH_BOUND_RATIO = 1.1  # host p50 over GPU p50 from which the launches, not the GPU, set the pace
SHIFT_P = 0.01  # a level shift is named when it is significant …
SHIFT_SIZE = 0.03  # … and at least this large, relative to the median
MODE_GAP = 0.10  # p93 to p97, relative to p95: a p95 that sits on the edge between two modes
CHANCE = 0.05  # identical runs fail the criterion more often than this by chance alone


def find_causes(clock: str, results: Sequence[LatencyResult], limit: float) -> tuple[str, ...]:
    """Name what the evidence points to when the p95 on `clock` spread by `limit` or more."""
    summaries = [getattr(r, clock) for r in results]
    causes = []
    if clock == "host" and _launch_bound(results):
        host, gpu = _median_p50(results, "host"), _median_p50(results, "gpu")
        causes.append(
            f"l'horloge hôte mesure surtout Python et le lancement des noyaux (p50 hôte "
            f"{number(host)} ms, p50 GPU {number(gpu)} ms) : le bruit est celui du processeur"
        )
    odd: dict[str, list[int]] = {}  # the same thing said of several runs is said once
    for run, (result, summary) in enumerate(zip(results, summaries, strict=True), start=1):
        for what in _oddities(clock, result, summary):
            odd.setdefault(what, []).append(run)
    causes += [f"{_named(runs)} : {what}" for what, runs in odd.items()]
    chance = _chance(summaries, limit)
    if chance > CHANCE:
        causes.append(
            f"des runs identiques, tirés de ces échantillons, échoueraient par hasard dans "
            f"{percent(chance)} des cas"
        )
    return tuple(causes) or (
        "aucune cause identifiée dans les échantillons : les runs diffèrent entre eux plus "
        "qu'en eux-mêmes",
    )


def _named(runs: Sequence[int]) -> str:
    if len(runs) == 1:
        return f"run {runs[0]}"
    return f"runs {', '.join(map(str, runs[:-1]))} et {runs[-1]}"


def _oddities(clock: str, result: LatencyResult, summary: LatencySummary) -> list[str]:
    found = []
    shift = _level_shift(summary)
    if shift:
        found.append(shift)
    p93, p95, p97 = np.quantile(summary.samples_ms, [0.93, 0.95, 0.97])
    if p97 - p93 > MODE_GAP * p95:
        found.append(
            f"p95 à la frontière de deux modes ({number(p93)} ms à 93 %, {number(p97)} ms à 97 %)"
        )
    if clock == "gpu" and result.retried_batches:
        found.append(f"{result.retried_batches} lot(s) repris, porte ouverte trop tôt")
    if not result.steady:
        found.append(f"régime non stabilisé après {result.warmup_used} itérations de chauffe")
    if interval(summary) is None:
        found.append("trop peu d'échantillons indépendants pour un intervalle du p95")
    return found


def _level_shift(summary: LatencySummary) -> str:
    try:
        shift = find_shift(summary.samples_ms)
    except ValueError:  # too few samples to say anything
        return ""
    if shift.p_value < SHIFT_P and abs(shift.relative) >= SHIFT_SIZE:
        return f"changement de niveau de {percent(shift.relative)} vers l'itération {shift.index}"
    return ""


def _chance(summaries: Sequence[LatencySummary], limit: float) -> float:
    samples = np.concatenate([s.samples_ms for s in summaries])
    return chance_of_failing(
        samples, run_length=summaries[0].n, runs=len(summaries), limit=limit, draws=200
    )


def interval(summary: LatencySummary) -> tuple[float, float] | None:
    """95 % interval (low, high) of the p95 in ms, or None where it cannot be estimated."""
    try:
        return quantile_interval(summary.samples_ms)
    except ValueError:
        return None


def _launch_bound(results: Sequence[LatencyResult]) -> bool:
    if any(r.gpu is None for r in results):
        return False
    return _median_p50(results, "host") > LAUNCH_BOUND_RATIO * _median_p50(results, "gpu")


def _median_p50(results: Sequence[LatencyResult], clock: str) -> float:
    return float(np.median([getattr(r, clock).p50 for r in results]))


def explain_bound(results: Sequence[LatencyResult], profile: ForwardProfile | None) -> str:
    """Say in a sentence what dominates a forward, launches or the GPU, and what would help."""
    if profile is None or any(r.gpu is None for r in results):
        return (
            "Pas d'horloge GPU ici : la latence hôte est celle du calcul sur le processeur ; un "
            "GPU, moins de précision ou un modèle compilé l'abaisseraient."
        )
    host, gpu = _median_p50(results, "host"), _median_p50(results, "gpu")
    facts = (
        f"p50 hôte {number(host)} ms, p50 GPU {number(gpu)} ms, somme des "
        f"{profile.kernels:.0f} noyaux {number(profile.kernel_ms)} ms"
    )
    if _launch_bound(results):
        return (
            f"Borné par les lancements ({facts}) : l'appelant attend Python et le pilote, pas le "
            "GPU. Un graphe CUDA, torch.compile(mode='reduce-overhead') ou un lot plus grand "
            "aideraient ; un GPU plus rapide, non."
        )
    return (
        f"Borné par le GPU ({facts}) : une précision réduite, channels_last ou la fusion des "
        "opérations aideraient ; un processeur plus rapide, non."
    )
