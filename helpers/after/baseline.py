"""This session against a stored one: each variant's p95, and its ratio to fp32 of the same session.

The process is the unit: what one process reads, the next one does not. So sessions are compared by
the p95 of their processes, and one whose runs share a process is not compared.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from scipy.stats import norm

from helpers import stats
from helpers.display.french import number, percent
from helpers.display.words import CLOCK_NAMES
from helpers.results import ResultsError, StoredSession, read_session
from helpers.results.files import read_file

REFERENCE = "fp32"
CONFIDENCE = 0.95  # of all changes of a comparison together (Bonferroni)
# Standard deviation of a session's log level over machines of one kind, which the processes of one
# machine cannot show. Two H100 sittings (benchmarks/repeatability): a rough figure, until both
# sessions hold several GPUs. It cancels in a ratio to fp32.
OTHER_MACHINE_SD = 0.025
SAME_IN_BOTH = ("gpu_name", "cpu", "torch_version", "cuda_version", "model")
SAME_IN_BOTH += ("precision", "batch_size", "input_shape", "device_type")

SCHEDULES = {"consecutive": "runs consécutifs", "randomised": "à tour de rôle"}
VERDICTS = {"faster": "plus rapide que", "slower": "plus lent que"}
VERDICTS |= {"same": "pas de différence détectée avec"}
VERDICTS |= {"open": "ralentissement de plus de {most} ni établi ni exclu face à"}


class BaselineError(RuntimeError):
    """No session to compare with, or (strict) this one is slower or incomparable."""


class Change(NamedTuple):
    """One figure of this session over the baseline's, with its simultaneous 95 % interval."""

    variant: str
    schedule: str
    clock: str
    to_reference: bool  # the figure is the p95's ratio to fp32's in the same process, or the p95
    ratio: float
    low: float
    high: float
    processes: tuple[int, int]  # of this session and of the baseline

    @property
    def verdict(self) -> str:
        """On which side of 1 the whole interval lies: "faster", "slower", or "same" if on none."""
        return "faster" if self.high < 1 else "slower" if self.low > 1 else "same"


class BaselineComparison(NamedTuple):
    """What changed; and `mismatches`: (variant, schedule, what, now, before) of what is no pair."""

    baseline: str
    same_gpu: bool
    changes: tuple[Change, ...]
    mismatches: tuple[tuple[str, str, str, str, str], ...]


def check_baseline(folder: str | Path) -> None:
    """Raise BaselineError, before anything is measured, if no session compares with this one.

    Every run's samples are read too, and must give the figures of their row.
    """
    try:
        session = read_session(folder)
        _entries(session)
        for index in session.rows.index:
            session.samples(index)
    except (ResultsError, ValueError, TypeError, KeyError, RecursionError) as error:  # runs.json's
        raise BaselineError(f"baseline='{folder}': {error}; give a complete session") from None


def compare_baseline(folder: str | Path, baseline: str | Path) -> BaselineComparison:
    """Compare two complete sessions; BaselineError as from `check_baseline`."""
    check_baseline(baseline)
    now, before = read_session(folder), read_session(baseline)
    ours, theirs = _entries(now), _entries(before)
    found = {entry: _mismatches(own, theirs.get(entry)) for entry, own in ours.items()}
    figures = [_figures({e: rows[e] for e in found if not found[e]}) for rows in (ours, theirs)]
    uuids = [(session.environment["gpu"] or {}).get("uuid") for session in (now, before)]
    same_gpu = uuids[0] is not None and uuids[0] == uuids[1]
    told = tuple((*entry, *one) for entry, own in found.items() for one in own)
    return BaselineComparison(before.name, same_gpu, changes_of(*figures, same_gpu), told)


def changes_of(now: dict, before: dict, same_gpu: bool) -> tuple[Change, ...]:
    """Compare what both know: {(variant, schedule, clock, to reference?): figures by process}."""
    common = [key for key in now if key in before]
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(common))
    between = math.sqrt(2) * OTHER_MACHINE_SD * norm.isf((1 - confidence) / 2)
    changes = []
    for key in common:
        ratio, low, high = stats.welch_interval(before[key], now[key], confidence)
        if not (same_gpu or key[-1]):
            half = math.hypot(math.log(high / low) / 2, between)
            low, high = ratio * math.exp(-half), ratio * math.exp(half)
        changes.append(Change(*key, ratio, low, high, (len(now[key]), len(before[key]))))
    return tuple(changes)


def _entries(session: StoredSession) -> dict[tuple[str, str], pd.DataFrame]:
    """Rows by variant and schedule, with their `process`: sessions that say of none had one."""
    given, rows, path = session.parameters, session.rows, session.folder / "runs.json"
    own = {"randomised": "compare_processes" in given}
    own["consecutive"] = given.get("isolation") == "process"
    if path.exists():  # a model that no other process could build was measured in one
        pids = [run["process"]["pid"] for run in json.loads(read_file(path))]
        own["consecutive"] = len(set(pids)) == len(pids)
    kind, cpu = rows["device"].str.partition(":")[0], session.environment["cpu"]
    named = f"{cpu['model']} ({cpu['torch_threads']} fils)"
    rows = rows.assign(
        process=rows["run"].where(rows["schedule"].isin([name for name in own if own[name]]), 0),
        device_type=kind,
        cpu=kind.map({"cpu": named}).fillna(""),  # beside a GPU it may be another
        model=given.get("model") or "",
    )
    # The reference again, as in « fp32 (A/A) », judges a session, not two.
    rows = rows[~rows["variant"].str.startswith(f"{REFERENCE} (")]
    return dict(iter(rows.groupby(["variant", "schedule"], sort=False)))


def _figures(entries: dict) -> dict[tuple[str, str, str, bool], pd.Series]:
    """p95 (ms) by process of each variant and clock, and its ratio to the reference's."""
    figures = {}
    for entry, rows in entries.items():
        for clock in ("gpu", "host"):
            p95 = rows.groupby("process")[f"{clock}_p95"].median()
            if p95.notna().all():
                figures[*entry, clock, False] = p95
    for (variant, *where, _), p95 in list(figures.items()):
        reference = figures.get((REFERENCE, *where, False))
        if variant != REFERENCE and reference is not None:
            figures[variant, *where, True] = (p95 / reference).dropna()
    return {key: own for key, own in figures.items() if len(own) > 1}


def _mismatches(now: pd.DataFrame, before: pd.DataFrame | None) -> list[tuple[str, str, str]]:
    """The conditions that do not have one and the same value in both sessions: (what, …, …)."""
    counts = [0 if rows is None else rows["process"].nunique() for rows in (now, before)]
    if min(counts) < 2:
        return [("processes", *map(str, counts))]
    found = []
    for name in SAME_IN_BOTH:
        sides = [" / ".join(map(str, rows[name].unique())) for rows in (now, before)]
        unknown = name == "model" and "" in sides  # older sessions did not write it down
        if not unknown and (sides[0] != sides[1] or " / " in sides[0]):
            found.append((name, *sides))
    return found


def enforce_baseline(compared: BaselineComparison, most: float, strict: bool = True) -> None:
    """With `strict`, nothing that compares, or one slower by over `most`, is a BaselineError."""
    slower = [c for c in compared.changes if c.verdict == "slower" and c.ratio > 1 + most]
    if strict and not compared.changes:
        raise BaselineError(f"nothing here compares with {compared.baseline}")
    if strict and slower:
        told = "; ".join(f"{c.variant} ({c.schedule}, {c.clock}) × {c.ratio:.3f}" for c in slower)
        raise BaselineError(
            f"slower than {compared.baseline} by more than max_regression={most:g}: {told}. The "
            "results are complete and stay; raise max_regression if the change is meant"
        )


def baseline_sentences(comparison: BaselineComparison, most: float) -> list[str]:
    """What is said of the comparison, in French; a slowdown by over `most` matters."""
    told = []
    for c in comparison.changes:
        found = "open" if c.verdict == "same" and c.high > 1 + most else c.verdict
        figure = f"rapport des p95 à {REFERENCE}, " * c.to_reference + CLOCK_NAMES[c.clock]
        told.append(
            f"{c.variant} ({SCHEDULES[c.schedule]}), {figure} : "
            f"{VERDICTS[found].format(most=percent(most))} `{comparison.baseline}`, "
            f"× {number(c.ratio)} ({number(c.low)} – {number(c.high)}), "
            f"{c.processes[0]} processus contre {c.processes[1]}."
        )
    for variant, schedule, what, now, before in comparison.mismatches:
        what = "processus (il en faut deux)" if what == "processes" else what
        sides = f"{what} = {now or 'aucun'} ici, {before or 'aucun'} là-bas"
        told.append(f"Non comparable : {variant} ({SCHEDULES[schedule]}) : {sides}.")
    if comparison.changes and not comparison.same_gpu:
        widened = f"comptent {percent(OTHER_MACHINE_SD)} d'écart type entre machines, vu sur H100"
        told.append(f"Autre machine, ou inconnue : les intervalles des latences {widened}.")
    return told
