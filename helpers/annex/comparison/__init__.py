"""Ratios of latencies to a reference, over processes, with intervals and verdicts.

The process is the unit: on an H100 each reads a ratio to within 0.04 %, and the next another, by up
to 2.4 %. So each contributes one figure per variant and clock, and more samples narrow nothing.
The reference takes part twice, as itself and as the A/A control: whatever a comparison "finds"
between those two is its own error.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from helpers import stats
from helpers.bench_latency import Run

REFERENCE, CONTROL = "fp32", "fp32 (A/A)"
CLOCKS = ("gpu", "host")
FASTER, SLOWER, SAME = "faster", "slower", "same"
MIN_PROCESSES = 3  # with two, Student's t is 12.7 standard errors wide before any correction
TOO_FEW = "too_few_processes"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Contribution:
    """What one process measured: a run by entry, and why others have none from it."""

    runs: dict[str, Run]
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class Measured:
    """What the processes gave so far; `stopped`: why there are fewer than were asked for."""

    asked: int
    processes: list[Contribution] = field(default_factory=list)
    stopped: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All entries of which there is a run, in the order of the first process."""
        return tuple(dict.fromkeys(name for given in self.processes for name in given.runs))

    @property
    def failed(self) -> dict[str, dict[int, str]]:
        """By entry: the numbers of the processes in which it failed, and why."""
        found: dict[str, dict[int, str]] = {}
        for number, given in enumerate(self.processes, 1):
            for name, why in given.failed.items():
                found.setdefault(name, {})[number] = why
        return found

    def runs(self, name: str) -> list[Run]:
        """The runs of an entry, one per process that has one."""
        return [given.runs[name] for given in self.processes if name in given.runs]


@dataclass(frozen=True)
class Ratio:
    """Latency over the reference's; below 1 is faster.

    `values`: of each process, `ratio` their mean. `low`, `high`: 95 % for all variants together, so
    that the verdict is already corrected for their number.
    """

    values: tuple[float, ...]
    ratio: float
    low: float
    high: float

    @property
    def sd(self) -> float:
        """Relative standard deviation over the processes."""
        return float(np.log(self.values).std(ddof=1))

    @property
    def verdict(self) -> str:
        """FASTER, SLOWER or SAME: on which side of 1 the whole interval lies, if on any."""
        if self.low <= 1 <= self.high:
            return SAME
        return FASTER if self.high < 1 else SLOWER


@dataclass(frozen=True)
class Comparison:
    """Ratios by clock and entry, the A/A control among them; `refused`: code and words by clock."""

    processes: int
    ratios: dict[str, dict[str, Ratio]]
    refused: dict[str, tuple[str, str]]

    def variable(self, clock: str) -> dict[str, float]:
        """Variants whose `sd` exceeds twice the median of the others', and how many times it is."""
        sds = {name: r.sd for name, r in self.ratios[clock].items() if name != CONTROL}
        found = {}
        for name, sd in sds.items():
            others = [other for key, other in sds.items() if key != name]
            if others and sd > 2 * np.median(others) > 0:
                found[name] = float(sd / np.median(others))
        return found


def compare(measured: Measured) -> Comparison:
    """Compare every entry with the reference, by every clock that both have."""
    ratios, refused = {}, {}
    for clock in CLOCKS:
        values = {name: _process_ratios(measured, name, clock) for name in measured.names}
        if not values.pop(REFERENCE, ()):
            refused[clock] = _no_clock(measured.runs(REFERENCE))
        elif found := over_processes(values):
            ratios[clock] = found
        else:
            refused[clock] = TOO_FEW, f"{len(measured.processes)} processes of {MIN_PROCESSES}"
    return Comparison(len(measured.processes), ratios, refused)


def over_processes(values: dict[str, Sequence[float]]) -> dict[str, Ratio]:
    """Mean and simultaneous intervals of ratios (k,) by entry; without those with too small a k.

    Student's t on the logarithms, with Bonferroni's correction for the number of variants: the
    control has intervals as wide and is no variant.
    """
    values = {name: ratios for name, ratios in values.items() if len(ratios) >= MIN_PROCESSES}
    alpha = (1 - CONFIDENCE) / max(len(values.keys() - {CONTROL}), 1)
    return {
        name: Ratio(
            tuple(ratios),
            math.exp(np.log(ratios).mean()),
            *stats.replicate_interval(ratios, 1 - alpha),
        )
        for name, ratios in values.items()
    }


def process_ratio(run: Run, reference: Run, clock: str) -> float:
    """One process's ratio: the median, over the rounds, of the ratio of both blocks' medians.

    Blocks of one round are close in time: drift that lasts longer than a round cancels. The median
    over the rounds leaves out those in which the CPU changed its mode, on the host clock by 40 %.
    """
    blocks = [_block_medians(getattr(r, clock).samples_ms, r.block) for r in (run, reference)]
    return float(np.median(np.divide(*blocks)))


def _block_medians(samples_ms: np.ndarray, block: int) -> np.ndarray:
    starts = range(0, samples_ms.size, block)
    return np.array([np.median(samples_ms[start : start + block]) for start in starts])


def _process_ratios(measured: Measured, name: str, clock: str) -> list[float]:
    """Of all processes in which this clock read both the entry and the reference."""
    pairs = [(p.runs[name], p.runs[REFERENCE]) for p in measured.processes if name in p.runs]
    return [process_ratio(*pair, clock) for pair in pairs if all(getattr(r, clock) for r in pair)]


def _no_clock(runs: Iterable[Run]) -> tuple[str, str]:
    found = ((run.no_gpu_clock, run.no_gpu_clock_why) for run in runs)
    return next(found, (TOO_FEW, "no process"))
