"""Ratios of latencies to a reference, over processes, with intervals and verdicts.

The process is the unit: on an H100's GPU clock each reads a ratio to within 0.2 %, and the next
another, by percents. So each contributes one figure per variant and clock, and more samples narrow
nothing. The reference takes part twice, as itself and as the A/A control: whatever a comparison
"finds" between those two is its own error.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import gmean

from helpers import stats
from helpers.bench_latency import Run

REFERENCE, CONTROL = "fp32", "fp32 (A/A)"
CLOCKS = ("gpu", "host")
MIN_PROCESSES = 3  # with two, Student's t is 12.7 standard errors wide before any correction
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Contribution:
    """What one process measured: a run by entry, and why others have none from it."""

    runs: dict[str, Run]
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class Measured:
    """What the processes gave so far; `stopped`: why there are fewer than were asked for."""

    processes: list[Contribution] = field(default_factory=list)
    stopped: str = ""

    def runs(self, name: str) -> list[Run]:
        """The runs of an entry, one per process that has one."""
        return [given.runs[name] for given in self.processes if name in given.runs]


@dataclass(frozen=True)
class Ratio:
    """Latency over the reference's, below 1 is faster: each process's, their mean, its interval.

    The interval (95 %) is for all variants together: the verdict is corrected for their number.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float

    @property
    def sd(self) -> float:
        """Relative standard deviation over the processes."""
        return float(np.log(self.values).std(ddof=1))

    @property
    def verdict(self) -> str:
        """On which side of 1 the whole interval lies: "faster", "slower", or "same" if on none."""
        return "faster" if self.high < 1 else "slower" if self.low > 1 else "same"


@dataclass(frozen=True)
class Comparison:
    """Ratios by clock and entry, the A/A control among them; `refused`: why a clock has none."""

    ratios: dict[str, dict[str, Ratio]]
    refused: dict[str, tuple[str, dict]]  # by clock, a code and the values its sentence names

    def variable(self, clock: str) -> list[str]:
        """Variants that vary over the processes more than twice as much as the others' median."""
        sds = {name: r.sd for name, r in self.ratios[clock].items() if name != CONTROL}
        others = {name: [sds[other] for other in sds if other != name] for name in sds}
        return [n for n, sd in sds.items() if others[n] and sd > 2 * np.median(others[n])]


def compare(measured: Measured) -> Comparison:
    """Compare every entry with the reference, by every clock that both have."""
    ratios, refused = {}, {}
    for clock in CLOCKS:
        values: dict[str, list[float]] = defaultdict(list)
        lacking = []  # by process that lacks this clock, one run that does
        for given in measured.processes:
            read = {name: run for name, run in given.runs.items() if getattr(run, clock)}
            lacking += [run for name, run in given.runs.items() if name not in read][:1]
            if reference := read.pop(REFERENCE, None):
                for name, run in read.items():
                    values[name].append(process_ratio(run, reference, clock))
        counts = {"processes": len(measured.processes), "lacking": len(lacking)}
        if found := over_processes(values):
            ratios[clock] = found
        elif lacking:
            why = {"why": lacking[0].no_gpu_clock_why}
            refused[clock] = lacking[0].no_gpu_clock, counts | why
        else:
            refused[clock] = "too_few_processes", counts
    return Comparison(ratios, refused)


def over_processes(values: dict[str, Sequence[float]]) -> dict[str, Ratio]:
    """Mean and simultaneous intervals of ratios (k,) by entry; without those of too small a k.

    Student's t on the logarithms, with Bonferroni's correction for the number of variants: the
    control is none, but gets intervals as wide.
    """
    values = {name: tuple(given) for name, given in values.items() if len(given) >= MIN_PROCESSES}
    confidence = 1 - (1 - CONFIDENCE) / max(len(values.keys() - {CONTROL}), 1)
    means = {name: float(gmean(given)) for name, given in values.items()}
    ends = {name: stats.replicate_interval(given, confidence) for name, given in values.items()}
    return {name: Ratio(given, means[name], *ends[name]) for name, given in values.items()}


def process_ratio(run: Run, reference: Run, clock: str) -> float:
    """One process's ratio: the geometric mean of those of its rounds.

    On the host clock the CPU changes its mode, and the ratio then changes by 40 % and more: a
    median would keep the more frequent mode alone, the mean knows how often each was met. It counts
    disturbed rounds too: they widen the interval over the processes.
    """
    return float(gmean(round_ratios(run, reference, clock)))


def round_ratios(run: Run, reference: Run, clock: str) -> np.ndarray:
    """Of each round, the ratio of both blocks' medians (rounds,).

    Blocks of one round are close in time: drift that lasts longer than a round cancels.
    """
    medians = []
    for one in (run, reference):
        samples = getattr(one, clock).samples_ms
        starts = range(0, samples.size, one.block)
        medians.append([np.median(samples[start : start + one.block]) for start in starts])
    return np.divide(*medians)
