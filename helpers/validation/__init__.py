"""Step 4: consecutive runs, the 10 % criterion on their p95, and the verdict with its causes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from helpers.bench_latency import Run, benchmark_latency
from helpers.clocks.checks import move_inputs
from helpers.clocks.profiling import ForwardProfile, contradicted
from helpers.environment.facts import first_line
from helpers.environment.progress import track
from helpers.parameters import Parameters
from helpers.stats import further_interval, spread
from helpers.validation import processes
from helpers.validation.causes import Cause, find_causes
from helpers.validation.interference import HOST_RULES, RunTags, tags

ACCEPTED, RESERVED, NOT_ACCEPTED = "yes", "reserved", "no"  # as the CSV says it
# Flags of a run whose GPU clock is in doubt
CONTRADICTED, UNPROVEN = "gpu_clock_contradicted", "gpu_clock_unproven"
HARMLESS = {CONTRADICTED, UNPROVEN, "gpu_clock_unavailable", "retried_batches"}  # no reserve
# For the life of a process each eager launch costs some 0.2 µs of GPU time more, or not (measured
# on H100s): half of it is a fair coin's standard deviation. It counts like six more processes.
LAUNCH_SD_MS, LAUNCH_FREEDOM = 0.1e-3, 6.0
UNPROVEN_RATIO = 0.2  # GPU p50 over host p50; a launch-bound eager ResNet-18 reads 0.4 to 0.8


@dataclass(frozen=True)
class ClockVerdict:
    """The criterion on one clock."""

    clock: str
    p95_ms: tuple[float, ...]  # of the runs
    p95_spread: float  # fractions
    mean_spread: float
    met: bool
    causes: tuple[Cause, ...]  # what the evidence points to, met or not
    further: tuple[float, float] | None  # p95 (ms) of another session, 95 %; of three processes


@dataclass(frozen=True)
class Verdict:
    """All runs, what was seen around them, the verdict on each clock, and which of them decides."""

    runs: tuple[Run, ...]
    seen: tuple[RunTags, ...]
    flags: tuple[tuple[str, ...], ...]  # of each run, see `flags_of`
    deciding: str
    max_p95_spread: float
    clocks: dict[str, ClockVerdict]
    doubt: str  # see `doubt_of`
    reserves: tuple[str, ...]  # see `judge`

    @property
    def outcome(self) -> str:
        """ACCEPTED, or RESERVED where the criterion is met by disturbed runs, or NOT_ACCEPTED."""
        met = RESERVED if self.reserves else ACCEPTED
        return met if self.clocks[self.deciding].met else NOT_ACCEPTED

    @property
    def accepted(self) -> bool:
        """Is the criterion met on the deciding clock, without reserve?"""
        return self.outcome == ACCEPTED

    def record(self) -> list[dict]:
        """Of each run: its process, the tags of its blocks, and the looks that they rest on."""
        pairs = zip(self.runs, self.seen, strict=True)
        return [{"process": r.process, "seen": s, "looks": r.looks} for r, s in pairs]


def measure_runs(
    model: nn.Module, dataloader: Iterable, parameters: Parameters, device, done: int = 0
) -> Iterator[Run]:
    """Yield the runs of a session that are left after `done`, each as soon as it is complete.

    Each has its own warm-up; with isolation="process" also its own process, so that what differs
    between processes is seen. A model that cannot be handed over is measured in this one, as with
    isolation="none": its runs' `process` tells. Raises FreshProcessError, and what the model does.
    """
    inputs = move_inputs(dataloader, torch.device("cpu"))
    iterations = parameters.warmup_iters, parameters.measure_iters
    settings = {"device": device, "clock": parameters.clock}
    apart = parameters.isolation == "process"
    for _ in track(range(done, parameters.runs), description="runs"):
        if apart:
            try:
                given = processes.pack_model(model), inputs, iterations, settings
                yield processes.in_fresh_process(_measure_packed, *given)
                continue
            except processes.NotPortableError:
                apart = False
        yield benchmark_latency(model, inputs, *iterations, **settings)


def _measure_packed(packed, inputs, iterations, settings) -> Run:
    try:
        model = processes.unpack_model(packed)
    except Exception as error:  # a class or module that this process cannot import
        raise processes.NotPortableError(first_line(error)) from error
    model = model.to(settings["device"])
    # Only here: a capture that fails may harm its process (the random numbers of torch 2.11).
    return benchmark_latency(model, inputs, *iterations, graph=True, **settings)


def doubt_of(run: Run, profile: ForwardProfile | None) -> str:
    """Code of the reason to doubt a run's GPU clock, "" if there is none.

    CONTRADICTED: it reads less than half of what the profile's kernels take, so that work ran where
    it does not look. UNPROVEN: without a profile, it reads little of what the host's clock does.
    """
    if run.gpu and profile:
        return CONTRADICTED if contradicted(run.gpu.p50, profile.kernel_ms) else ""
    return UNPROVEN if run.gpu and run.gpu.p50 < UNPROVEN_RATIO * run.host.p50 else ""


def flags_of(run: Run, seen: RunTags, profile=None, receipt=None) -> tuple[str, ...]:
    """Codes of all that speaks against a run's figures, for the column `flags`."""
    codes = ["unsteady_warmup"] * (not run.warmup.steady)
    codes += ["conditions_not_met"] * (not run.conditions.required_for(run.precision))
    codes += ["gpu_clock_unavailable"] * (run.gpu is None and run.device.startswith("cuda"))
    codes += ["retried_batches"] * (run.retried_batches > 0)
    codes += [doubt_of(run, profile), *seen.codes, *(receipt.flags if receipt else ())]
    return tuple(filter(None, codes))


def deciding_clock(requested: str, runs: Sequence[Run], profile=None) -> str:
    """Which clock fills `lat_*` and decides: the GPU's where all runs have it, uncontradicted.

    RuntimeError where clock="gpu" was asked for and that is not so.
    """
    missing = next((run.no_gpu_clock_why for run in runs if not run.gpu), "")
    if any(doubt_of(run, profile) == CONTRADICTED for run in runs):
        missing = "it reads less than half of what the profile says the model's kernels take"
    if requested == "gpu" and missing:
        raise RuntimeError(f"clock='gpu' cannot be had: {missing}. Use clock='auto' or 'host'")
    return "host" if requested == "host" or missing else "gpu"


def judge(
    runs: Iterable[Run], clock="auto", max_p95_spread=0.10, profile=None, receipt=None
) -> Verdict:
    """Apply the criterion, spread = (max - min) / mean of the runs' p95, to every clock there is.

    The reserves: flags that matter for the deciding clock, and means that spread by the limit.
    ValueError: fewer than two runs. RuntimeError: clock="gpu" was asked for and cannot be trusted.
    """
    runs = tuple(runs)
    if len(runs) < 2:
        raise ValueError(f"{len(runs)} runs, a spread needs two: call `measure_runs` again")
    deciding = deciding_clock(clock, runs, profile)
    had = [name for name in ("gpu", "host") if all(getattr(run, name) for run in runs)]
    verdicts = {name: _judge_clock(name, runs, max_p95_spread) for name in had}
    seen, doubt = tags(runs), max(doubt_of(run, profile) for run in runs)  # one code at most
    flags = tuple(flags_of(*pair, profile, receipt) for pair in zip(runs, seen, strict=True))
    harmless = HARMLESS | (HOST_RULES.keys() if deciding == "gpu" else set())
    reserves = [code for codes in flags for code in codes if code not in harmless]
    reserves += ["mean_spread"] * bool(verdicts[deciding].mean_spread >= max_p95_spread)
    reserves = tuple(dict.fromkeys(reserves))
    return Verdict(runs, seen, flags, deciding, max_p95_spread, verdicts, doubt, reserves)


def _judge_clock(clock: str, runs: tuple[Run, ...], limit: float) -> ClockVerdict:
    p95, means = (tuple(getattr(getattr(r, clock), f) for r in runs) for f in ("p95", "mean"))
    apart = len(runs) >= 3 and len({run.process.pid for run in runs}) == len(runs)
    launches = [run.graph.launches for run in runs if clock == "gpu" and run.graph]
    further = further_p95(p95, launches) if apart else None
    found, of_p95 = find_causes(clock, runs, limit), spread(p95)
    return ClockVerdict(clock, p95, of_p95, spread(means), of_p95 < limit, found, further)


def further_p95(p95_ms: Sequence[float], launches=()) -> tuple[float, float]:
    """Where the p95 (ms) of a further session would land, of as many processes (95 %).

    `launches` of each process's eager forward, on the GPU clock, or None where they could not be
    counted: what is known of the cost of a launch counts too.
    """
    seen = [count for count in launches if count]
    if not seen:
        return further_interval(p95_ms)
    known_sd = LAUNCH_SD_MS * float(np.median(seen)) / float(np.mean(p95_ms))
    return further_interval(p95_ms, known_sd=known_sd, known_freedom=LAUNCH_FREEDOM)
