"""The verdict in French sentences: what was met, on which clock, and if not, why."""

import html
import re
from collections.abc import Sequence
from itertools import chain

import numpy as np

from helpers.bench_latency import Run
from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.profiling import ForwardProfile
from helpers.display import words
from helpers.display.french import counted, fill, number, percent
from helpers.display.tables import against_limit, conditions_table
from helpers.display.words import CLOCK_NAMES, labels, said
from helpers.validation import RESERVED, ClockVerdict, Verdict
from helpers.validation.causes import Cause, bound_of
from helpers.validation.interference import RunTags

HEADLINE = re.compile(
    r"((NON )?ACCEPTÉ|ACCEPTÉ SOUS RÉSERVE) — horloge (GPU|hôte) : écart du p95 .+ [<≥] .+ "
    r"sur \d+ runs( ; refaite, .+ ms)?( ; mesures perturbées : .+)?"
)

TO_DO, RUNS = "À faire", ("run", "runs")
# How the sentences begin that never fold away
SHOWN = (TO_DO, "ATTENTION", "Horloge", "L'horloge", "Pas d'horloge")


def headline(verdict: Verdict) -> str:
    """The verdict in one line, of the form HEADLINE whatever the outcome."""
    clock = verdict.clocks[verdict.deciding]
    told = f"{words.OUTCOMES[verdict.outcome]} — {CLOCK_NAMES[clock.clock]} : écart du p95 "
    told += f"{against_limit(clock, verdict.max_p95_spread)} sur {len(clock.p95_ms)} runs"
    if clock.further and clock.further[1] < 10 * clock.further[0]:  # beyond, it says nothing
        told += f" ; refaite, la session donnerait {' – '.join(map(number, clock.further))} ms"
    reserved = f" ; mesures perturbées : {labels(verdict.reserves)}"
    return told + reserved * (verdict.outcome == RESERVED)


def to_do(verdict: Verdict) -> str:
    """What the reader can do about a session that is not accepted without reserve; "" if it is."""
    seen = {*verdict.reserves, verdict.doubt}
    seen.update(cause.code for cause in _shown(verdict.clocks[verdict.deciding]))
    if any(run.gpu is None and run.device != "cpu" for run in verdict.runs):
        seen.add("gpu_clock_unavailable")
    remedies = [remedy for codes, remedy in words.TO_DO.items() if seen.intersection(codes)]
    actions = [remedy for remedy in remedies if not remedy.startswith("si ")]
    told = [f"{n}) {action}" for n, action in enumerate(actions, 1)] if actions[1:] else actions
    told.append(f"relancer{' après chaque action' * (len(actions) > 1)}")
    told += [remedy for remedy in remedies if remedy not in actions]
    return "" if verdict.accepted else f"{TO_DO} : {' ; '.join(told)}."


def clock_sentence(clock: ClockVerdict, verdict: Verdict) -> str:
    """What one clock found, and what the runs themselves show; if it is not met, all causes."""
    runs_of: dict[str, list[int]] = {}  # by what is said of them: said once
    spread = against_limit(clock, verdict.max_p95_spread)
    for cause in _shown(clock):
        runs_of.setdefault(said(words.CAUSES, cause.code, cause.values), []).extend(cause.runs)
    return _with_points(
        f"{CLOCK_NAMES[clock.clock].replace('h', 'H', 1)}"
        f"{' (décide)' if clock.clock == verdict.deciding else ''} : p95 "
        f"{' · '.join(map(number, clock.p95_ms))} ms, écart {spread} "
        f"(moyenne : {percent(clock.mean_spread)}), critère {'' if clock.met else 'non '}tenu",
        [f"{_numbered(runs)} : {told}" if runs else told for told, runs in runs_of.items()],
    )


def _shown(clock: ClockVerdict) -> list[Cause]:
    """All causes of a spread too large, else what single runs show."""
    return [cause for cause in clock.causes if cause.runs or not clock.met]


def _numbered(numbers: Sequence[int], nouns: Sequence[str] = RUNS) -> str:
    return f"{nouns[len(numbers) > 1]} {', '.join(map(str, numbers))}"


def disturbances(seen: Sequence[RunTags], during: str, nouns: Sequence[str] = RUNS) -> str:
    """What was seen around the blocks of all runs, each kind once, at its worst."""
    told, blocks = [], [block for tags in seen for block in tags.blocks]
    for code in dict.fromkeys(code for tags in seen for code in tags.codes):
        found = [[tag for tag in block if tag.code == code] for block in blocks]
        worst = max(chain(*found), key=lambda tag: tag.value)
        where = _numbered([n for n, tags in enumerate(seen, 1) if code in tags.codes], nouns)
        count = f"{counted(sum(map(bool, found)), 'bloc')} sur {len(blocks)} de tous les {nouns[1]}"
        told.append(f"{said(words.TAGS, code, worst.values)} ({where} ; {count})")
    idle = [(t.idle_foreigners, _numbered([n], nouns)) for n, t in enumerate(seen, 1)]
    idle = [f"{count} ({where})" for count, where in idle if count]
    told += [f"autres processus présents sur le GPU sans calcul : {', '.join(idle)}"] * bool(idle)
    told += [words.STEADY_POWER_CAP] * any(tags.steady_power_cap for tags in seen)
    return _with_points(f"Perturbations pendant {during}", told or ["aucune constatée"])


def _with_points(sentence: str, points: Sequence[str]) -> str:
    """A sentence, and under it, as a nested Markdown list, what there is to say about it."""
    return "\n".join([f"{sentence} :", *(f"  - {p}" for p in points)]) if points else f"{sentence}."


def verdict_sentences(
    verdict: Verdict, receipt: CalibrationReceipt, profile: ForwardProfile | None, unseen: str = ""
) -> list[str]:
    """The whole verdict, headline first; `unseen`: why there is no profile, "" on a CPU."""
    runs, sentences = verdict.runs, [headline(verdict), to_do(verdict)]
    if verdict.doubt:
        gpu_ms = next(run.gpu.p50 for run in runs if run.gpu is not None)
        values = {"gpu_ms": gpu_ms, "kernel_ms": profile and profile.kernel_ms}
        sentences.append(said(words.DOUBTS, verdict.doubt, values))
    sentences += [clock_sentence(clock, verdict) for clock in verdict.clocks.values()]
    if verdict.clocks[verdict.deciding].further is None:
        sentences.append(words.NO_FURTHER["one_process" if len(runs) > 2 else "few_runs"])
    for run in runs:
        if run.gpu is None:
            why = said(words.NO_GPU_CLOCK, run.no_gpu_clock, {"why": run.no_gpu_clock_why})
            sentences.append(f"Pas d'horloge GPU : {why}.")
        if not run.conditions.required_for(run.precision):
            rows = conditions_table(run.conditions).iloc[:, 0].items()
            found = ", ".join(f"{name} : {value}" for name, value in rows)
            sentences.append(fill(words.NOT_MET, {"precision": run.precision, "found": found}))
    calibrated = words.RECEIPTS[receipt.status] + f" (« {receipt.reason} »)" * bool(receipt.reason)
    sentences.append(f"Étalonnage : {calibrated}.")
    copies = "unseen" if unseen else "no_gpu"
    if profile:
        copies = "some" if profile.host_to_device + profile.device_to_host else "none"
    copies = fill(words.COPIES[copies], vars(profile) if profile else {"why": unseen})
    sentences += [copies, launch_cost(runs), disturbances(verdict.seen, "les runs")]
    hidden = labels(code for tags in verdict.seen for code in tags.unseen)
    sentences.append(f"Non observable, au moins en partie : {hidden}." if hidden else "")
    return list(filter(None, dict.fromkeys(sentences)))  # what several runs share is said once


def verdict_text(sentences: Sequence[str]) -> str:
    """The verdict as Markdown: a title and a list; causes and details fold away."""
    title, *others = (html.escape(one, quote=False) for one in sentences)  # <error> is no element
    shown = [one.split(" :\n")[0].rstrip(".") for one in others if one.startswith(SHOWN)]
    shown, whole = ("".join(f"- {one}\n" for one in points) for points in (shown, others))
    return f"### {title}\n\n{shown}\n{words.DETAILS}\n\n{whole}\n</details>\n"


def bound_sentence(runs: Sequence[Run], profile: ForwardProfile | None) -> str:
    """What a forward waits for, launches or the GPU, and what would help."""
    return said(words.BOUNDS, *bound_of(runs, profile))


def launch_cost(runs: Sequence[Run]) -> str:
    """GPU time that a captured graph saves, per launch, over the processes; "" where not asked."""
    graphs = [(run.gpu.p50, run.graph) for run in runs if run.gpu and run.graph]
    read = [(ms, g) for ms, g in graphs if g.launches and g.samples_ms is not None]
    if not read:
        why = graphs[0][1].why or "the profiler saw no kernel" if graphs else ""
        return fill(words.NO_LAUNCH_COST, {"why": why}) if why else ""
    seen = np.array([(ms, np.median(graph.samples_ms), graph.launches) for ms, graph in read])
    costs_us = 1e3 * (seen[:, 0] - seen[:, 1]) / seen[:, 2]
    values = dict(zip(("gpu_ms", "graph_ms", "launches"), np.median(seen, axis=0), strict=True))
    return fill(words.LAUNCH_COST, values | {"low": costs_us.min(), "high": costs_us.max()})
