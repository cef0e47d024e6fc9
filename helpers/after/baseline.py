"""This session against a stored one: faster, slower, or no difference detected, where they compare.

Between sessions the runs are the units, and they are not enough: runs of one process share the
place of the model in memory, and all processes of a sitting share the machine. SESSION_SD says how
much those move the level; it widens every interval, because three runs cannot show it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from helpers.annex.comparison import CLOCKS, control_of
from helpers.annex.comparison.stats import CONFIDENCE, SAME, SLOWER, side_of_one
from helpers.annex.entries import COPIES, REFERENCE
from helpers.display.french import number, percent
from helpers.display.verdict import CLOCK_NAMES
from helpers.results import ResultsError, StoredSession, read_session

RESULTS = Path("results")  # where sessions are unless told otherwise
# Standard deviation of the logarithm of a session's median latency: fresh processes on one GPU, and
# sittings on two machines of one kind. Measured on H100 (benchmarks/repeatability: 35 processes in
# two sittings); two machines make a rough figure, and other hardware may do better or worse.
SESSION_SD = {"gpu": {"same": 0.006, "other": 0.025}, "host": {"same": 0.11, "other": 0.11}}
SESSION_KEYS = ("gpu_name", "torch_version", "cuda_version")
VARIANT_KEYS = ("precision", "batch_size", "input_shape", "device_type")
_ENTRY = ["variant", "schedule"]
_SCHEDULES = {"consecutive": "runs consécutifs", "interleaved": "runs entrelacés"}
_SCHEDULES["randomised"] = "à tour de rôle"
CONTROLS = (control_of(REFERENCE), *COPIES)  # the reference again: they judge a session, not two


class BaselineError(RuntimeError):
    """There is no session to compare with, or (strict) this one is slower or incomparable."""


@dataclass(frozen=True)
class Change:
    """One variant on one clock: this session's latency over the baseline's.

    `low`, `high`: 95 % interval, corrected for the number of changes on that clock, that allows for
    SESSION_SD. `runs`: of this session and of the baseline.
    """

    variant: str
    schedule: str
    clock: str
    ratio: float
    low: float
    high: float
    runs: tuple[int, int]

    @property
    def verdict(self) -> str:
        """FASTER, SLOWER or SAME: see `side_of_one`."""
        return side_of_one(self.low, self.high)


@dataclass(frozen=True)
class BaselineComparison:
    """What changed, and what could not be compared: every mismatch is named (French)."""

    session: str
    baseline: str
    same_gpu: bool
    changes: tuple[Change, ...]
    mismatches: tuple[str, ...]


def baseline_problem(folder: str | Path) -> str | None:
    """Say why no session can be compared with the one in `folder`; None if one can.

    Everything that the comparison will need is read, every run's samples too.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        inside = RESULTS / folder
        hint = f", did you mean '{inside}'?" if inside.is_dir() else ""
        return f"{str(folder)!r}: there is no such folder{hint}; give a complete session's folder"
    try:
        session = read_session(folder)
        for index in session.rows.index:
            session.samples(index)
    except ResultsError as error:
        return f"{str(folder)!r}: {error}; give the folder of another complete session"
    return None


def check_baseline(folder: str | Path) -> None:
    """Raise BaselineError, before anything is measured, where `baseline_problem` finds one."""
    if problem := baseline_problem(folder):
        raise BaselineError(f"baseline={problem}")


def compare_baseline(folder: str | Path, baseline: str | Path) -> BaselineComparison:
    """Compare the session in `folder` with the one in `baseline`, both complete.

    Raises
    ------
    BaselineError
        One of them cannot be read: see `baseline_problem`.
    """
    check_baseline(baseline)
    now, before = read_session(folder), read_session(Path(baseline).expanduser())
    mismatches = _session_mismatches(now, before)
    pairs = []
    if not mismatches:
        theirs, ours = _rows(before), _rows(now)
        for key, rows in ours[~ours["variant"].isin(CONTROLS)].groupby(_ENTRY, sort=False):
            stored = theirs[(theirs[_ENTRY] == list(key)).all(axis=1)]
            named = _variant_mismatches(key, rows, stored)
            mismatches += named
            if not named:
                pairs.append((key, _log_medians(now, rows), _log_medians(before, stored)))
    uuids = [(session.environment["gpu"] or {}).get("uuid") for session in (now, before)]
    same_gpu = uuids[0] is not None and uuids[0] == uuids[1]
    changes = [c for clock in SESSION_SD for c in _changes(clock, pairs, same_gpu, mismatches)]
    return BaselineComparison(now.name, before.name, same_gpu, tuple(changes), tuple(mismatches))


def _rows(session: StoredSession) -> pd.DataFrame:
    return session.rows.assign(device_type=session.rows["device"].str.partition(":")[0])


def _log_medians(session: StoredSession, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Logarithm of each run's median latency, by clock that all of these runs have."""
    try:
        runs = [session.samples(index) for index in rows.index]
    except ResultsError as error:
        raise BaselineError(f"session {session.name} cannot be compared: {error}") from None
    return {
        clock: np.log([np.median(run[f"{clock}_ms"]) for run in runs])
        for clock in CLOCKS
        if rows[f"{clock}_mean"].notna().all()
    }


def baseline_sentences(comparison: BaselineComparison) -> list[str]:
    """What is said of the comparison, in French; what it cannot tell stands beside it."""
    told = [_sentence(change, comparison.baseline) for change in comparison.changes]
    told += [f"Non comparable : {mismatch}." for mismatch in comparison.mismatches]
    if comparison.changes:
        which = "same" if comparison.same_gpu else "other"
        where = "le même GPU" if comparison.same_gpu else "un autre GPU, ou un GPU inconnu"
        sds = " et ".join(
            f"{percent(SESSION_SD[clock][which])} ({CLOCK_NAMES[clock]})"
            for clock in dict.fromkeys(c.clock for c in comparison.changes)
        )
        told.append(
            f"Les intervalles comptent, par session, un écart type de {sds} que les runs d'une "
            f"session ne montrent pas ({where} ; mesuré sur H100)."
        )
    return told


def _sentence(change: Change, baseline: str) -> str:
    link = "avec" if change.verdict == SAME else "que"
    low, high = number(change.low), number(change.high)
    return (
        f"{_named(change.variant, change.schedule)}, {CLOCK_NAMES[change.clock]} : "
        f"{change.verdict} {link} `{baseline}`, rapport {number(change.ratio)} ({low} – {high}), "
        f"{change.runs[0]} runs contre {change.runs[1]}."
    )


def enforce_baseline(
    comparison: BaselineComparison, max_regression: float, strict: bool = True
) -> None:
    """With `strict`, raise BaselineError where nothing compares or a variant is too much slower.

    Parameters
    ----------
    max_regression
        A fraction: 0.05 allows variants to be 5 % slower.
    """
    if not strict:
        return
    if not comparison.changes:
        raise BaselineError(
            f"nothing in {comparison.session} can be compared with {comparison.baseline}: "
            f"{' ; '.join(comparison.mismatches) or 'no runs'}. Measure under the baseline's "
            "conditions, or choose another baseline"
        )
    slower = [
        f"{c.variant} ({c.schedule}, {c.clock} clock) {c.ratio - 1:+.1%}, 95 % interval "
        f"{c.low - 1:+.1%} to {c.high - 1:+.1%}"
        for c in comparison.changes
        if c.verdict == SLOWER and c.ratio > 1 + max_regression
    ]
    if slower:
        raise BaselineError(
            f"slower than {comparison.baseline} by more than max_regression={max_regression:g}: "
            f"{'; '.join(slower)}. The session's results are complete and stay; measure again, or "
            "raise max_regression if the change is meant"
        )


def _session_mismatches(now: StoredSession, before: StoredSession) -> list[str]:
    found = [
        _differ(key, now.rows[key].unique(), before.rows[key].unique()) for key in SESSION_KEYS
    ]
    models = [session.parameters.get("model") for session in (now, before)]
    if None not in models:  # older sessions did not write it down
        found.append(_differ("model", models[:1], models[1:]))
    return [told for told in found if told]


def _variant_mismatches(key, rows: pd.DataFrame, stored: pd.DataFrame) -> list[str]:
    name = _named(*key)
    if stored.empty:
        return [f"{name} : absent de la session de référence"]
    sides = [(column, rows[column].unique(), stored[column].unique()) for column in VARIANT_KEYS]
    return [told for side in sides if (told := _differ(*side, name))]


def _differ(what: str, now: Sequence, before: Sequence, name: str = "") -> str:
    """Name a condition that is not one and the same value in both sessions; "" if it is."""
    if len(now) == 1 and list(now) == list(before):
        return ""
    values = (" / ".join(str(value) or "aucun" for value in side) for side in (now, before))
    prefix = f"{name} : " if name else ""
    return prefix + f"{what} = " + " ici, ".join(values) + " dans la référence"


def _named(variant: str, schedule: str) -> str:
    return f"{variant} ({_SCHEDULES.get(schedule, schedule)})"


def _changes(clock: str, pairs, same_gpu: bool, mismatches: list[str]) -> list[Change]:
    pairs = [
        (key, now[clock], before[clock])
        for key, now, before in pairs
        if clock in now and clock in before
    ]
    alone = [key for key, *sides in pairs if min(map(len, sides)) < 2]
    mismatches += [f"{_named(*key)} : moins de deux runs" for key in alone]
    pairs = [pair for pair in pairs if pair[0] not in alone]
    session_sd = SESSION_SD[clock]["same" if same_gpu else "other"]
    return [
        _change(key, clock, now, before, session_sd, confidence=1 - (1 - CONFIDENCE) / len(pairs))
        for key, now, before in pairs
    ]


def _change(key, clock: str, now, before, session_sd: float, confidence: float) -> Change:
    """Ratio of the runs' mean levels; Welch's interval, and session_sd on either side."""
    welch = stats.ttest_ind(now, before, equal_var=False) if np.ptp([*now, *before]) else None
    bounds = welch.confidence_interval(confidence) if welch else (0.0, 0.0)
    within = (bounds[1] - bounds[0]) / 2
    between = stats.norm.isf((1 - confidence) / 2) * math.sqrt(2) * session_sd
    mean, half = float(now.mean() - before.mean()), math.hypot(within, between)
    ends = (math.exp(mean - half), math.exp(mean + half))
    return Change(*key, clock, math.exp(mean), *ends, (len(now), len(before)))
