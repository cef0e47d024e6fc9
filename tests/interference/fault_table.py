"""The table of a fault injection: detections, false alarms, effects, cost of looking."""

from collections import Counter

import numpy as np
from scipy import stats

from helpers.display.french import number
from helpers.validation.interference.rules import GPU_RULES, HOST_RULES

SOMEONE = {"foreign_gpu_process", "gpu_disturbed"}
CLOCK = {"gpu_clock_drop", "throttle"}
EXPECTED = {  # any of these codes detects the fault; other tags of the same run do not count
    "gpu_full": SOMEONE,
    "gpu_bursts": SOMEONE,
    "gpu_copies": SOMEONE,
    "gpu_power": SOMEONE | CLOCK,
    "cpu_all_cores": {"cpu_load"},
    "cpu_same_core": {"preempted", "cpu_load"},
    "gc_storm": {"gc"},
    "cold_start": {"cold_gpu", "warmup_short"},
}
FRENCH = {
    "gpu_full": "processus GPU à pleine charge (matrices 4096²)",
    "gpu_bursts": "rafales GPU (20 % du temps, période 500 ms)",
    "gpu_copies": "copies mémoire GPU",
    "gpu_power": "voisin gourmand en puissance (matrices bf16 8192²)",
    "cpu_all_cores": "un processus CPU par cœur",
    "cpu_same_core": "processus CPU sur le cœur du benchmark",
    "gc_storm": "ramasse-miettes en boucle",
    "cold_start": "GPU au repos au départ, chauffe écourtée",
}
EQUIVALENCE = np.log(1.005)  # looking may change a latency by at most 0.5 %


def markdown(report: dict) -> str:
    """The whole result, in French."""
    runs = report["runs"]
    clean = [r for r in runs if r["kind"].startswith("clean") and not r["error"]]
    parts = [
        f"# Injection de fautes\n\nAppareil {report['device']}, torch {report['torch']}, "
        f"{report['wall_s']:.0f} s ; runs de {report['options']['iterations']} échantillons par "
        "horloge (×2 pour les runs propres, ×5 pour les rafales), ordre aléatoire ; d'abord, tour "
        "à tour, des processus neufs sur un GPU au repos, à la chauffe écourtée ou entière. "
        "Intervalles de Clopper-Pearson à 95 %. Effet : médiane sur les runs perturbés / médiane "
        "sur les runs propres (pour la chauffe écourtée : ceux des processus neufs), p de "
        "Mann-Whitney.\n",
        "| faute | détectée | intervalle | effet hôte | effet GPU | étiquettes vues | refus |",
        "|---|---|---|---|---|---|---|",
        *(_fault_row(kind, runs, _comparable(kind, clean)) for kind in EXPECTED),
        "",
        *_false_alarms(clean),
        *_overhead(report["pairs"]),
        *_readings(runs, clean),
        *(f"- {kind} n'a pas pu être injectée : {why}" for kind, why in report["missing"].items()),
        "",
        *_margins(clean),
    ]
    return "\n".join(parts) + "\n"


def _comparable(kind: str, clean: list[dict]) -> list[dict]:
    """The clean runs made as those of a fault were, but for the fault."""
    like = "clean_process" if kind == "cold_start" else "clean"
    return [r for r in clean if r["kind"] == like]


def _fault_row(kind: str, runs: list[dict], clean: list[dict]) -> str:
    tried = [r for r in runs if r["kind"] == kind]
    measured = [r for r in tried if not r["error"]]
    hits = sum(bool(EXPECTED[kind] & set(r["tags"])) for r in measured)
    seen = Counter(tag for r in measured for tag in r["tags"])
    tags = ", ".join(f"{tag} {count}" for tag, count in seen.most_common()) or "aucune"
    effects = (_effect(measured, clean, clock) for clock in ("host", "gpu"))
    cells = (FRENCH[kind], f"{hits}/{len(measured)}", _interval(hits, len(measured)), *effects)
    return f"| {' | '.join(cells)} | {tags} | {len(tried) - len(measured)} |"


def _interval(hits: int, n: int) -> str:
    if not n:
        return "–"
    interval = stats.binomtest(hits, n).proportion_ci(0.95, "exact")
    return f"{100 * interval.low:.0f}–{100 * interval.high:.0f} %"


def _effect(runs: list[dict], clean: list[dict], clock: str) -> str:
    told = []
    for name, french in (("p95", "p95"), ("mean", "moyenne")):
        ours, theirs = ([r[clock][name] for r in g if clock in r] for g in (runs, clean))
        if not ours or not theirs:
            return "–"
        p = stats.mannwhitneyu(ours, theirs).pvalue
        told.append(f"{french} ×{number(np.median(ours) / np.median(theirs), 3)} (p = {p:.1g})")
    return ", ".join(told)


def _false_alarms(clean: list[dict]) -> list[str]:
    alarms = [r for r in clean if r["tags"]]
    seen = Counter(tag for r in alarms for tag in r["tags"])
    return [
        f"- Fausses alarmes : {len(alarms)} sur {len(clean)} runs propres "
        f"({_interval(len(alarms), len(clean))}) {dict(seen) or ''}"
    ]


def _overhead(pairs: list[dict]) -> list[str]:
    lines = []
    for clock in ("gpu", "host"):
        for name in ("p50", "mean", "p95"):
            logs = [
                np.log(p["with"][clock][name] / p["without"][clock][name])
                for p in pairs
                if clock in p["with"]
            ]
            if len(logs) >= 3:
                lines.append(f"- {_equivalence(np.array(logs), clock, name)}")
    return lines


def _equivalence(logs: np.ndarray, clock: str, name: str) -> str:
    """Two one-sided t tests (Schuirmann 1987, J. Pharmacokin. Biopharm. 15:657)."""
    low = stats.ttest_1samp(logs, -EQUIVALENCE, alternative="greater")
    high = stats.ttest_1samp(logs, EQUIVALENCE, alternative="less")
    p = max(low.pvalue, high.pvalue)
    interval = stats.ttest_1samp(logs, 0).confidence_interval(0.90)
    return (
        f"Surveillance avec/sans, horloge {clock}, {name} : {100 * logs.mean():+.3f} % "
        f"[{100 * interval.low:+.3f} ; {100 * interval.high:+.3f}] (IC 90 %, {len(logs)} paires), "
        f"{'équivalent' if p < 0.05 else 'équivalence non montrée'} à ±0,5 % (p = {p:.2g})"
    )


def _readings(runs: list[dict], clean: list[dict]) -> list[str]:
    every = [o for r in runs for o in r["observations"]]
    looks = [o["look_ms"] for o in every]
    unseen = sorted({what for o in every for what in o["unseen"]})
    lines = [
        f"- Non observable ici : {', '.join(unseen) or 'rien'}",
    ]
    if looks:
        lines.append(f"- Un regard : médiane {np.median(looks):.2f} ms, max {max(looks):.2f} ms")
    for kind in ("clean", "gpu_power", "cold_start", "clean_process"):
        group = [r for r in runs if r["kind"] == kind]
        mhz = [o["sm_mhz"] for r in group for o in r["observations"] if o["sm_mhz"]]
        if mhz:
            lines.append(f"- Horloge SM, {kind} : {min(mhz)} à {max(mhz)} MHz (fin de bloc)")
    firsts = [r["first_ms"] for r in runs if r["kind"] == "cold_start" and "first_ms" in r]
    usual = [r["first_ms"] for r in _comparable("cold_start", clean)]
    if firsts and usual:
        lines.append(
            f"- Dix premiers échantillons hôte, médiane : {np.median(firsts):.3f} ms à la chauffe "
            f"écourtée, {np.median(usual):.3f} ms à la chauffe entière"
        )
    return lines


def _margins(clean: list[dict]) -> list[str]:
    """How near the clean blocks came to each threshold."""
    lines = ["| règle | seuil | médiane propre | max propre |", "|---|---|---|---|"]
    for code, rule in (GPU_RULES | HOST_RULES).items():
        values = [
            o["values"][code] for r in clean for o in r["observations"] if code in o["values"]
        ]
        if values:
            lines.append(
                f"| {code} | {rule.limit:g} | {np.median(values):.4g} | {max(values):.4g} |"
            )
    return lines
