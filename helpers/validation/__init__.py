"""Step 4: consecutive runs, the 10 % criterion on their p95, and the verdict with its causes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from helpers.bench_latency import Run, benchmark_latency
from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.checks import move_inputs
from helpers.clocks.profiling import ForwardProfile, contradicted
from helpers.environment.facts import first_line
from helpers.environment.progress import track
from helpers.parameters import Parameters
from helpers.stats import further_interval, spread
from helpers.validation.causes import Cause, find_causes
from helpers.validation.interference import GPU_RULES, RunTags, tags
from helpers.validation.processes import (
    NotPortableError,
    in_fresh_process,
    pack_model,
    unpack_model,
)

ACCEPTED, RESERVED, NOT_ACCEPTED = "yes", "reserved", "no"  # as the CSV says it

# Flags of a run whose GPU clock is in doubt
CONTRADICTED, UNPROVEN = "gpu_clock_contradicted", "gpu_clock_unproven"
# For the life of a process each eager launch costs some 0.2 µs of GPU time more, or not (measured
# on H100s): half of it is a fair coin's standard deviation. It counts like six more processes.
LAUNCH_SD_MS, LAUNCH_FREEDOM = 0.1e-3, 6.0
UNPROVEN_RATIO = 0.2  # GPU p50 over host p50; a launch-bound eager ResNet-18 reads 0.4 to 0.8


@dataclass(frozen=True)
class ClockVerdict:
    """The criterion on one clock: the runs' p95 and means (ms), their spreads (fractions).

    `causes`: what the evidence points to, met or not. `further`: where the p95 of a further session
    of as many processes would land (95 %, in ms), None without three processes or more.
    """

    clock: str
    p95_ms: tuple[float, ...]
    mean_ms: tuple[float, ...]
    p95_spread: float
    mean_spread: float
    met: bool
    causes: tuple[Cause, ...]
    further: tuple[float, float] | None


@dataclass(frozen=True)
class Verdict:
    """All runs, what was seen around them, the verdict on each clock, and which of them decides.

    `doubt`: see `doubt_of`. `reserves`: codes of what disturbed the deciding clock, see `judge`.
    """

    runs: tuple[Run, ...]
    seen: tuple[RunTags, ...]
    deciding: str
    max_p95_spread: float
    clocks: dict[str, ClockVerdict]
    doubt: str = ""
    reserves: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """ACCEPTED, or RESERVED where the criterion is met by disturbed runs, or NOT_ACCEPTED."""
        if not self.clocks[self.deciding].met:
            return NOT_ACCEPTED
        return RESERVED if self.reserves else ACCEPTED

    @property
    def accepted(self) -> bool:
        """Is the criterion met on the deciding clock, without reserve?"""
        return self.outcome == ACCEPTED


def measure_runs(
    model: nn.Module,
    dataloader: Iterable,
    parameters: Parameters,
    device: torch.device,
    done: int = 0,
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
    for _ in track(range(done, parameters.runs), parameters.runs - done, "runs"):
        if apart:
            try:
                packed = pack_model(model)
                yield in_fresh_process(_measure_packed, packed, inputs, iterations, settings)
                continue
            except NotPortableError:
                apart = False
        yield benchmark_latency(model, inputs, *iterations, **settings)


def _measure_packed(packed, inputs, iterations, settings) -> Run:
    try:
        model = unpack_model(packed)
    except Exception as error:  # a class or module that this process cannot import
        raise NotPortableError(first_line(error)) from error
    model = model.to(settings["device"])
    # Only here: a capture that fails may harm its process (the random numbers of torch 2.11).
    return benchmark_latency(model, inputs, *iterations, graph=True, **settings)


def check_clock(requested: str, device: torch.device) -> None:
    """Refuse (RuntimeError), before anything is measured, the GPU clock where there is no GPU."""
    if requested == "gpu" and device.type != "cuda":
        raise RuntimeError(
            f"clock='gpu' cannot be had on device '{device}': use clock='auto' or 'host', or a "
            "machine with a CUDA GPU"
        )


def doubt_of(run: Run, profile: ForwardProfile | None) -> str:
    """Code of the reason to doubt a run's GPU clock, "" if there is none.

    CONTRADICTED: it reads less than half of what the profile's kernels take, so that work ran where
    it does not look. UNPROVEN: no profile was had, and it reads less than a fifth of the host's
    clock, which a launch-bound model does too.
    """
    if run.gpu is None:
        return ""
    if profile is not None:
        return CONTRADICTED if contradicted(run.gpu.p50, profile.kernel_ms) else ""
    return UNPROVEN if run.gpu.p50 < UNPROVEN_RATIO * run.host.p50 else ""


def deciding_clock(
    requested: str, runs: Iterable[Run], profile: ForwardProfile | None = None
) -> str:
    """Which clock fills `lat_*` and decides: the GPU's where all runs have it, uncontradicted.

    RuntimeError where clock="gpu" was asked for and that is not so.
    """
    runs = tuple(runs)
    missing = next((run.no_gpu_clock_why for run in runs if not run.gpu), "")
    if any(doubt_of(run, profile) == CONTRADICTED for run in runs):
        missing = "it reads less than half of what the profile says the model's kernels take"
    if requested == "gpu" and missing:
        raise RuntimeError(f"clock='gpu' cannot be had: {missing}. Use clock='auto' or 'host'")
    return "host" if requested == "host" or missing else "gpu"


def judge(
    runs: Iterable[Run],
    clock: str = "auto",
    max_p95_spread: float = 0.10,
    profile: ForwardProfile | None = None,
    receipt: CalibrationReceipt | None = None,
) -> Verdict:
    """Apply the criterion, spread = (max - min) / mean of the runs' p95, to every clock there is.

    The reserves: tags that matter for the deciding clock, a calibration or a warm-up that is not in
    order, and means that spread by the limit or more.

    ValueError: fewer than two runs. RuntimeError: clock="gpu" was asked for and cannot be trusted.
    """
    runs = tuple(runs)
    if len(runs) < 2:
        raise ValueError(f"a verdict compares at least two runs, got {len(runs)}: measure more")
    deciding = deciding_clock(clock, runs, profile)
    had = [name for name in ("gpu", "host") if all(getattr(run, name) for run in runs)]
    verdicts = {name: _judge_clock(name, runs, max_p95_spread) for name in had}
    seen, doubt = tags(runs), max(doubt_of(run, profile) for run in runs)  # one code at most
    reserves = [c for one in seen for c in one.codes if deciding == "host" or c in GPU_RULES]
    reserves += receipt.flags if receipt else ()
    reserves += ["conditions_not_met"] * any(
        not run.conditions.required_for(run.precision) for run in runs
    )
    reserves += ["unsteady_warmup"] * any(not run.warmup.steady for run in runs)
    reserves += ["mean_spread"] * bool(verdicts[deciding].mean_spread >= max_p95_spread)
    reserves = tuple(dict.fromkeys(reserves))
    return Verdict(runs, seen, deciding, max_p95_spread, verdicts, doubt, reserves)


def _judge_clock(clock: str, runs: tuple[Run, ...], limit: float) -> ClockVerdict:
    p95, means = (tuple(getattr(getattr(r, clock), f) for r in runs) for f in ("p95", "mean"))
    met, causes = spread(p95) < limit, find_causes(clock, runs, limit)
    apart = len(runs) >= 3 and len({run.process.pid for run in runs}) == len(runs)
    launches = [run.graph.launches for run in runs if clock == "gpu" and run.graph]
    further = further_p95(p95, launches) if apart else None
    return ClockVerdict(clock, p95, means, spread(p95), spread(means), met, causes, further)


def further_p95(
    p95_ms: Sequence[float], launches: Sequence[float | None] = ()
) -> tuple[float, float]:
    """Where the p95 (ms) of a further session would land, of as many processes (95 %).

    `launches` of each process's eager forward, for the GPU clock where they could be counted: what
    is known of the cost of a launch then counts too.
    """
    seen = [count for count in launches if count]
    if not seen:
        return further_interval(p95_ms)
    known_sd = LAUNCH_SD_MS * float(np.median(seen)) / float(np.mean(p95_ms))
    return further_interval(p95_ms, known_sd=known_sd, known_freedom=LAUNCH_FREEDOM)
