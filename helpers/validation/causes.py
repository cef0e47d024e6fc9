"""Why runs differ, and what bounds a forward: what the evidence points to, as codes and numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from helpers.bench_latency import Run
from helpers.clocks.profiling import ForwardProfile
from helpers.environment.facts import attempt
from helpers.stats import LatencySummary, chance_of_failing, find_shift, quantile_interval

LAUNCH_BOUND_RATIO = 1.1  # host p50 over GPU p50 from which the launches, not the GPU, set the pace
SHIFT_P = 0.01  # a level shift is named when it is significant …
SHIFT_SIZE = 0.03  # … and at least this large, relative to the median
MODE_GAP = 0.10  # p93 to p97, relative to p95: a p95 that sits on the edge between two modes
CHANCE = 0.05  # identical runs fail the criterion more often than this by chance alone


@dataclass(frozen=True)
class Cause:
    """What was seen, in which runs (from 1; none: in all of them together), and its numbers."""

    code: str
    runs: tuple[int, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)


def find_causes(clock: str, runs: Sequence[Run], limit: float) -> tuple[Cause, ...]:
    """Name what the evidence points to when the p95 on `clock` spread by `limit` or more."""
    causes, (launch_bound, pace) = [], _pace(runs)
    if clock == "host" and launch_bound:
        causes.append(Cause("launch_bound", values=pace))
    for number, run in enumerate(runs, start=1):
        causes += [Cause(code, (number,), values) for code, values in _oddities(clock, run)]
    series = [getattr(run, clock).samples_ms for run in runs]
    chance = chance_of_failing(np.concatenate(series), series[0].size, len(runs), limit, draws=200)
    if chance > CHANCE:
        causes.append(Cause("chance", values={"chance": chance}))
    return tuple(causes) or (Cause("unknown"),)


def _oddities(clock: str, run: Run) -> Iterator[tuple[str, dict]]:
    samples = getattr(run, clock).samples_ms
    shift = attempt(find_shift, samples)  # None: too few samples to say anything
    if shift and shift.p_value < SHIFT_P and abs(shift.relative) >= SHIFT_SIZE:
        before, after = map(np.median, np.split(samples, [shift.index]))
        yield "level_shift", {"iteration": shift.index, "before_ms": before, "after_ms": after}
    p93, p95, p97 = np.quantile(samples, [0.93, 0.95, 0.97]).tolist()
    if p97 - p93 > MODE_GAP * p95:
        yield "between_modes", {"p93_ms": p93, "p97_ms": p97}
    if clock == "gpu" and run.retried_batches:
        yield "retried_batches", {"batches": run.retried_batches}
    if not run.warmup.steady:
        yield "unsteady_warmup", {"iterations": len(run.warmup.samples_ms)}
    if interval(getattr(run, clock)) is None:
        yield "no_interval", {}


def interval(summary: LatencySummary) -> tuple[float, float] | None:
    """95 % interval (low, high) of these samples' p95 in ms, or None where it cannot be had."""
    return attempt(quantile_interval, summary.samples_ms)


def _pace(runs: Sequence[Run]) -> tuple[bool, dict[str, float]]:
    """Does the host wait longer than the GPU works; and both clocks' p50, {} without the GPU's."""
    clocks = ("host", "gpu") if all(run.gpu for run in runs) else ()
    pace = {f"{c}_ms": float(np.median([getattr(run, c).p50 for run in runs])) for c in clocks}
    return bool(pace) and pace["host_ms"] > LAUNCH_BOUND_RATIO * pace["gpu_ms"], pace


def bound_of(runs: Sequence[Run], profile: ForwardProfile | None) -> tuple[str, dict[str, Any]]:
    """What sets the pace, "launches", "gpu" or "no_gpu_clock", and the numbers it rests on."""
    launch_bound, pace = _pace(runs)
    if profile is None or not pace:
        return "no_gpu_clock", {}
    values = pace | {"kernels": profile.kernels, "kernel_ms": profile.kernel_ms}
    return "launches" if launch_bound else "gpu", values
