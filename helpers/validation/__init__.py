"""Step 4: consecutive runs, the 10 % criterion on their p95, and the verdict with its causes."""

import multiprocessing
import pickle
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import torch
from torch import nn

from helpers.bench_latency import LatencyResult, benchmark_latency
from helpers.clocks.checks import device_of, move_inputs
from helpers.clocks.profiling import ForwardProfile, contradicted
from helpers.environment.facts import first_line
from helpers.stats import spread
from helpers.validation.causes import find_causes
from helpers.validation.interference import Observation, Watch

CLOCKS = ("gpu", "host")

# Flags of a run whose GPU clock is in doubt
CONTRADICTED, UNPROVEN = "gpu_clock_contradicted", "gpu_clock_unproven"
UNPROVEN_RATIO = 0.2  # GPU p50 over host p50; a launch-bound eager ResNet-18 reads 0.4 to 0.8


@dataclass(frozen=True)
class ClockVerdict:
    """The criterion on one clock: the runs' p95 and means (ms), their spreads (fractions).

    `met`: the spread of the p95 is below the limit. `causes`: what the evidence points to when it
    is not (French phrases); never empty then.
    """

    clock: str
    p95_ms: tuple[float, ...]
    mean_ms: tuple[float, ...]
    p95_spread: float
    mean_spread: float
    met: bool
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Validation:
    """All runs, the verdict on each clock, and which of them decides.

    `doubt`: "" or why the GPU clock's figures are not to be trusted, see `doubt_of`.
    """

    results: tuple[LatencyResult, ...]
    deciding: str
    max_p95_spread: float
    clocks: dict[str, ClockVerdict]
    doubt: str = ""

    @property
    def accepted(self) -> bool:
        """Is the criterion met on the deciding clock?"""
        return self.clocks[self.deciding].met


def validation_runs(
    model: nn.Module,
    dataloader: Iterable,
    *,
    runs: int = 3,
    warmup_iters: int = 50,
    measure_iters: int = 500,
    device: torch.device,
    isolation: str = "none",
    precision: str = "fp32",
    clock: str = "auto",
    watch: Watch | None = None,
) -> Iterator[tuple[LatencyResult, tuple[Observation, ...]]]:
    """Yield (result, what was seen around each of its blocks), each run as soon as it is complete.

    The runs follow each other, each with its own warm-up.

    Parameters
    ----------
    isolation
        "process": each run in a fresh process, so that repeatability between processes is seen.
    clock
        "host" leaves the GPU's clock out.
    watch
        Looks between blocks, never inside; a new one by default, and in a fresh process anyway.

    Raises
    ------
    ValueError
        Unknown isolation.
    """
    if isolation not in ("none", "process"):
        raise ValueError(f"isolation={isolation!r}: use 'none' or 'process'")
    settings = {"device": device, "precision": precision, "clock": clock}
    watch = watch or Watch(device)
    watch.forget()
    iterations = (warmup_iters, measure_iters)
    for _ in range(runs):
        if isolation == "process":
            yield _in_fresh_process(model, dataloader, iterations, settings)
        else:
            yield _watched(model, dataloader, iterations, settings, watch)


def _watched(model, dataloader, iterations, settings, watch):
    result = benchmark_latency(
        model, dataloader, *iterations, between_blocks=watch.look, **settings
    )
    return result, watch.observations(result)


def _in_fresh_process(model, dataloader, iterations, settings):
    cpu = torch.device("cpu")
    inputs, home = move_inputs(dataloader, cpu), device_of(model)
    _check_portable(model)
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    try:
        model.to(cpu)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(_measure_moved, model, inputs, iterations, settings).result()
    except torch.AcceleratorError as error:
        if "busy or unavailable" not in str(error):
            raise
        raise RuntimeError(
            f"isolation='process': a second process cannot use the GPU ({first_line(error)}): it "
            "is in exclusive compute mode, see `nvidia-smi -q -d COMPUTE`. Use isolation='none'"
        ) from error
    except BrokenProcessPool as error:
        raise RuntimeError(
            "isolation='process': the fresh process ended before its run was complete; it was "
            "killed, ran out of memory, or could not import the model's class (move a class "
            "defined in a notebook to a module). isolation='none' measures without it"
        ) from error
    finally:
        model.to(home)


def _check_portable(model) -> None:
    try:
        if not isinstance(model, nn.Module):
            raise TypeError("it is no nn.Module")
        pickle.dumps(model)
    except Exception as error:
        raise ValueError(
            f"isolation='process' cannot hand this model ({type(model).__name__}) to a fresh "
            f"process: {error}. Use isolation='none', or a module without lambdas and hooks"
        ) from error


def _measure_moved(model, inputs, iterations, settings):
    device = settings["device"]
    return _watched(model.to(device), inputs, iterations, settings, Watch(device))


def check_clock(requested: str, device: torch.device) -> None:
    """Refuse, before anything is measured, the GPU clock where there is no GPU.

    Raises
    ------
    RuntimeError
        clock="gpu" was asked for and the device is no GPU.
    """
    if requested == "gpu" and device.type != "cuda":
        raise RuntimeError(
            f"clock='gpu' cannot be had on device '{device}': use clock='auto' or 'host', or a "
            "machine with a CUDA GPU"
        )


def doubt_of(result: LatencyResult, profile: ForwardProfile | None) -> str:
    """Code of the reason to doubt a run's GPU clock, "" if there is none.

    CONTRADICTED: it reads less than half of what the profile's kernels take, so that work ran where
    it does not look. UNPROVEN: no profile was had, and it reads less than a fifth of the host's
    clock, which a launch-bound model does too.
    """
    if result.gpu is None:
        return ""
    if profile is not None:
        return CONTRADICTED if contradicted(result.gpu.p50, profile.kernel_ms) else ""
    return UNPROVEN if result.gpu.p50 < UNPROVEN_RATIO * result.host.p50 else ""


def deciding_clock(
    requested: str, results: Iterable[LatencyResult], profile: ForwardProfile | None = None
) -> str:
    """Which clock fills `lat_*` and decides: the GPU's where all runs have it, uncontradicted.

    Raises
    ------
    ValueError
        There is no such clock.
    RuntimeError
        clock="gpu" was asked for and a run has none, or one that its kernels contradict.
    """
    if requested not in ("auto", *CLOCKS):
        raise ValueError(f"clock={requested!r}: use 'auto', 'gpu' or 'host'")
    results = tuple(results)
    missing = next((r.gpu_unavailable_why or r.gpu_unavailable for r in results if not r.gpu), "")
    if any(doubt_of(r, profile) == CONTRADICTED for r in results):
        missing = "it reads less than half of what the profile says the model's kernels take"
    if requested == "gpu" and missing:
        raise RuntimeError(f"clock='gpu' cannot be had: {missing}. Use clock='auto' or 'host'")
    return "host" if requested == "host" or missing else "gpu"


def judge(
    results: Iterable[LatencyResult],
    clock: str = "auto",
    max_p95_spread: float = 0.10,
    profile: ForwardProfile | None = None,
) -> Validation:
    """Apply the criterion, spread = (max - min) / mean of the runs' p95, to every clock there is.

    Parameters
    ----------
    profile
        What the GPU really did, where it could be seen: it may contradict the GPU's clock.

    Raises
    ------
    ValueError
        Fewer than two runs.
    RuntimeError
        clock="gpu" was asked for and a run has no GPU clock to be trusted.
    """
    results = tuple(results)
    if len(results) < 2:
        raise ValueError(f"a verdict compares at least two runs, got {len(results)}: measure more")
    deciding = deciding_clock(clock, results, profile)
    verdicts = {
        name: _judge_clock(name, results, max_p95_spread)
        for name in CLOCKS
        if all(getattr(r, name) is not None for r in results)
    }
    doubts = {doubt_of(r, profile) for r in results}
    doubt = next((code for code in (CONTRADICTED, UNPROVEN) if code in doubts), "")
    return Validation(results, deciding, max_p95_spread, verdicts, doubt)


def _judge_clock(clock: str, results: tuple[LatencyResult, ...], limit: float) -> ClockVerdict:
    summaries = [getattr(r, clock) for r in results]
    p95 = tuple(s.p95 for s in summaries)
    means = tuple(s.mean for s in summaries)
    met = spread(p95) < limit
    causes = () if met else find_causes(clock, results, limit)
    return ClockVerdict(clock, p95, means, spread(p95), spread(means), met, causes)
