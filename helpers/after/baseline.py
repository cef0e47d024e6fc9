"""This session against a stored one: each variant's p95, and its ratio to fp32 of the same session.

The process is the unit: what one process reads, the next one does not. So sessions are compared by
the p95 of their processes, and one whose runs share a process is not compared.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from scipy.stats import norm

from helpers import stats
from helpers.display.french import number, percent
from helpers.display.words import CLOCK_NAMES
from helpers.results import ResultsError, StoredSession, read_session
from helpers.results.files import read_file

RESULTS = Path("results")  # where sessions are unless told otherwise
REFERENCE = "fp32"
CONFIDENCE = 0.95  # of all changes of a comparison together (Bonferroni)
# Standard deviation of a session's log level over machines of one kind, which the processes of one
# machine cannot show. Two H100 sittings (benchmarks/repeatability): a rough figure, to be replaced
# by what is measured once both sessions hold several GPUs. It cancels in a ratio to fp32.
OTHER_MACHINE_SD = 0.025
SAME_BUT_MODEL = ("gpu_name", "torch_version", "cuda_version")
SAME_IN_A_SESSION = (*SAME_BUT_MODEL, "model")  # which older sessions did not write down
SAME_IN_A_VARIANT = ("precision", "batch_size", "input_shape", "device_type")
ENTRY, WHOLE = ["variant", "schedule"], ("", "")
FASTER, SLOWER, SAME = "faster", "slower", "same"
PROCESSES = "processes"


class BaselineError(RuntimeError):
    """There is no session to compare with, or (strict) this one is slower or incomparable."""


@dataclass(frozen=True)
class Change:
    """One figure of this session over the baseline's, with its simultaneous 95 % interval.

    The figure is a variant's p95 or, with `to_reference`, its ratio to fp32's in the same process.
    `processes`: of this session and of the baseline.
    """

    variant: str
    schedule: str
    clock: str
    to_reference: bool
    ratio: float
    low: float
    high: float
    processes: tuple[int, int]

    @property
    def verdict(self) -> str:
        """FASTER, SLOWER or SAME: on which side of 1 the whole interval lies, if on any."""
        if self.low <= 1 <= self.high:
            return SAME
        return FASTER if self.high < 1 else SLOWER


@dataclass(frozen=True)
class Mismatch:
    """Why an entry (WHOLE: the session) is not compared: what each session has for a condition.

    `what`: a column of the results, "model" or PROCESSES.
    """

    entry: tuple[str, str]
    what: str
    now: str
    before: str


@dataclass(frozen=True)
class BaselineComparison:
    """What changed, and what could not be compared."""

    session: str
    baseline: str
    same_gpu: bool
    changes: tuple[Change, ...]
    mismatches: tuple[Mismatch, ...]


def check_baseline(folder: str | Path) -> None:
    """Raise BaselineError, before anything is measured, if no session compares with this one.

    Every run's samples are read too, and must give the figures of their row.
    """
    folder = Path(folder).expanduser()
    try:
        if not folder.is_dir():
            hint = f", did you mean '{RESULTS / folder}'?" if (RESULTS / folder).is_dir() else ""
            raise ResultsError(f"there is no such folder{hint}")
        session = read_session(folder)
        for index in _rows(session).index:
            session.samples(index)
    except (ResultsError, ValueError, TypeError, KeyError) as error:  # the others: of runs.json
        raise BaselineError(f"baseline='{folder}': {error}; give a complete session") from None


def compare_baseline(folder: str | Path, baseline: str | Path) -> BaselineComparison:
    """Compare two complete sessions; BaselineError as from `check_baseline`."""
    check_baseline(baseline)
    now, before = read_session(folder), read_session(Path(baseline).expanduser())
    mismatches = _mismatches(_rows(now), _rows(before))
    left_out = {one.entry for one in mismatches}
    uuids = [(session.environment["gpu"] or {}).get("uuid") for session in (now, before)]
    same_gpu = uuids[0] is not None and uuids[0] == uuids[1]
    ours = {k: own for k, own in _figures(_rows(now)).items() if not left_out & {k[:2], WHOLE}}
    changes = changes_of(ours, _figures(_rows(before)), same_gpu)
    return BaselineComparison(now.name, before.name, same_gpu, changes, tuple(mismatches))


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


def _rows(session: StoredSession) -> pd.DataFrame:
    """The rows of the variants, and of each its `process`: sessions that say of none had one."""
    given, rows, path = session.parameters, session.rows, session.folder / "runs.json"
    own = {"randomised": "compare_processes" in given}
    own["consecutive"] = given.get("isolation") == "process"
    if path.exists():  # a model that no other process could build was measured in one
        pids = {run["process"]["pid"] for run in json.loads(read_file(path))}
        own["consecutive"] = len(pids) > 1
    rows = rows.assign(
        process=rows["run"].where(rows["schedule"].map(own).fillna(False).astype(bool), 0),
        device_type=rows["device"].str.partition(":")[0],
        model=given.get("model") or "",
    )
    # The reference again, as in « fp32 (A/A) », judges a session, not two.
    return rows[~rows["variant"].str.startswith(f"{REFERENCE} (")]


def _figures(rows: pd.DataFrame) -> dict[tuple[str, str, str, bool], pd.Series]:
    """p95 (ms) by process of each variant and clock, and its ratio to the reference's."""
    figures = {}
    for (*entry,), own in rows.groupby(ENTRY, sort=False):
        for clock in ("gpu", "host"):
            p95 = own.groupby("process")[f"{clock}_p95"].median()
            if p95.notna().all():
                figures[*entry, clock, False] = p95
    for variant, schedule, clock, _ in list(figures):
        reference = figures.get((REFERENCE, schedule, clock, False))
        if variant != REFERENCE and reference is not None:
            ratio = figures[variant, schedule, clock, False] / reference
            figures[variant, schedule, clock, True] = ratio.dropna()
    return {key: own for key, own in figures.items() if len(own) > 1}


def _mismatches(now: pd.DataFrame, before: pd.DataFrame) -> list[Mismatch]:
    known = SAME_IN_A_SESSION if now["model"].all() and before["model"].all() else SAME_BUT_MODEL
    if found := _differences(WHOLE, known, now, before):
        return found
    for entry, own in now.groupby(ENTRY, sort=False):
        stored = before[(before[ENTRY] == list(entry)).all(axis=1)]
        processes = [rows["process"].nunique() for rows in (own, stored)]
        if min(processes) < 2:  # 0: the variant is not there
            found.append(Mismatch(entry, PROCESSES, *map(str, processes)))
        else:
            found += _differences(entry, SAME_IN_A_VARIANT, own, stored)
    return found


def _differences(entry, names, now: pd.DataFrame, before: pd.DataFrame) -> list[Mismatch]:
    """The columns that do not hold one and the same value in both sessions."""
    found = []
    for name in names:
        sides = [" / ".join(map(str, rows[name].unique())) for rows in (now, before)]
        if sides[0] != sides[1] or " / " in sides[0]:
            found.append(Mismatch(entry, name, *sides))
    return found


def enforce_baseline(
    comparison: BaselineComparison, max_regression: float, strict: bool = True
) -> None:
    """With `strict`, raise BaselineError where nothing compares, or where a variant is slower by
    more than `max_regression` (0.05 allows 5 %).
    """
    if not strict:
        return
    if not comparison.changes:
        raise BaselineError(
            f"nothing in {comparison.session} can be compared with {comparison.baseline}: "
            f"{comparison.mismatches or 'no runs'}. Measure under its conditions, or choose another"
        )
    slower = [
        f"{c.variant} ({c.schedule}, {c.clock} clock{', ratio to fp32' if c.to_reference else ''}) "
        f"{c.ratio - 1:+.1%}, 95 % interval {c.low - 1:+.1%} to {c.high - 1:+.1%}"
        for c in comparison.changes
        if c.verdict == SLOWER and c.ratio > 1 + max_regression
    ]
    if slower:
        raise BaselineError(
            f"slower than {comparison.baseline} by more than max_regression={max_regression:g}: "
            f"{'; '.join(slower)}. The session's results are complete and stay; measure again, or "
            "raise max_regression if the change is meant"
        )


def baseline_sentences(comparison: BaselineComparison) -> list[str]:
    """What is said of the comparison, in French; the only French of this module."""
    schedules = {"consecutive": "runs consécutifs", "randomised": "à tour de rôle"}
    verdicts = {FASTER: "plus rapide que", SLOWER: "plus lent que"}
    told = []
    for c in comparison.changes:
        figure = f"rapport à {REFERENCE}, " if c.to_reference else ""
        told.append(
            f"{c.variant} ({schedules.get(c.schedule, c.schedule)}), {figure}"
            f"{CLOCK_NAMES[c.clock]} : {verdicts.get(c.verdict, 'pas de différence détectée avec')} `{comparison.baseline}`,"
            f" × {number(c.ratio)} ({number(c.low)} – {number(c.high)}), "
            f"{c.processes[0]} processus contre {c.processes[1]}."
        )
    for m in comparison.mismatches:
        where = "" if m.entry == WHOLE else f"{m.entry[0]} ({schedules.get(*m.entry[1:] * 2)}) : "
        now, before = m.now or "aucun", m.before or "aucun"
        told.append(f"Non comparable : {where}{m.what} = {now} ici, {before} dans la référence.")
    if any(m.what == PROCESSES for m in comparison.mismatches):
        told.append(
            "Un seul processus ne dit rien de ce que liraient les autres : il en faut deux."
        )
    if comparison.changes and not comparison.same_gpu:
        told.append(
            "Un autre GPU, ou un GPU inconnu : les intervalles des latences comptent un écart type "
            f"de {percent(OTHER_MACHINE_SD)} entre machines (mesuré sur H100) ; les rapports à "
            f"{REFERENCE} n'en ont pas besoin."
        )
    return told
