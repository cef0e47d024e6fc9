"""Step 4: consecutive runs, the 10 % criterion on their p95, and the verdict with its causes."""

import multiprocessing
import pickle
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import torch
from torch import nn

from helpers.bench_latency import LatencyResult, benchmark_latency, prepared
from helpers.clocks.checks import device_of, move_inputs
from helpers.stats import spread
from helpers.validation.causes import find_causes
from helpers.validation.interference import Observation, Watch

CLOCKS = ("gpu", "host")


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
    """All runs, the verdict on each clock, and which of them decides."""

    results: tuple[LatencyResult, ...]
    deciding: str
    max_p95_spread: float
    schedule: str
    clocks: dict[str, ClockVerdict]

    @property
    def met(self) -> bool:
        """Is the criterion met on the deciding clock?"""
        return self.clocks[self.deciding].met

    @property
    def accepted(self) -> bool:
        """Is the day's acceptance shown? Interleaved runs are a diagnostic and never show it."""
        return self.met and self.schedule == "consecutive"


def validation_runs(
    model: nn.Module,
    dataloader: Iterable,
    *,
    runs: int = 3,
    warmup_iters: int = 50,
    measure_iters: int = 500,
    device: torch.device,
    schedule: str = "consecutive",
    isolation: str = "none",
    precision: str = "fp32",
    watch: Watch | None = None,
) -> Iterator[tuple[LatencyResult, tuple[Observation, ...]]]:
    """Yield (result, what was seen around each of its blocks), each run as soon as it is complete.

    Parameters
    ----------
    schedule
        "consecutive": one run after the other, each with its own warm-up. "interleaved": blocks of
        the runs in turn after one warm-up, so that drift hits all alike; a diagnostic.
    isolation
        "process": each run in a fresh process, so that repeatability between processes is seen.
    watch
        Looks between blocks, never inside; a new one by default, and in a fresh process anyway.

    Raises
    ------
    ValueError
        Unknown schedule or isolation, or interleaved runs that are to be isolated.
    """
    if schedule not in ("consecutive", "interleaved") or isolation not in ("none", "process"):
        raise ValueError(
            f"schedule={schedule!r}, isolation={isolation!r}: use 'consecutive' or 'interleaved', "
            "'none' or 'process'"
        )
    settings = {"device": device, "precision": precision}
    watch = watch or Watch(device)
    watch.forget()
    if schedule == "interleaved":
        if isolation == "process":
            raise ValueError(
                "schedule='interleaved' needs all runs in one process: use isolation='none'"
            )
        with prepared(model, dataloader, warmup_iters, **settings) as bench:
            yield from _interleaved(bench, runs, measure_iters, watch)
        return
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


def _interleaved(bench, runs: int, measure_iters: int, watch: Watch):
    started = [bench.new_run(measure_iters) for _ in range(runs)]
    while started and not started[-1].complete:
        for run in started:
            watch.look()
            run.measure_block()
    watch.look()
    results = [run.result() for run in started]
    return zip(results, watch.interleaved(results), strict=True)


def _in_fresh_process(model, dataloader, iterations, settings):
    cpu = torch.device("cpu")
    inputs, home = move_inputs(dataloader, cpu), device_of(model)
    _check_portable(model)
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    try:
        model.to(cpu)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(_measure_moved, model, inputs, iterations, settings).result()
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


def deciding_clock(requested: str, results: Iterable[LatencyResult]) -> str:
    """Which clock fills `lat_*` and decides: "gpu" where every run has it, unless asked otherwise.

    Raises
    ------
    ValueError
        There is no such clock.
    RuntimeError
        clock="gpu" was asked for and a run has no GPU clock.
    """
    if requested not in ("auto", *CLOCKS):
        raise ValueError(f"clock={requested!r}: use 'auto', 'gpu' or 'host'")
    missing = next((r.gpu_unavailable for r in results if r.gpu is None), "")
    if requested == "gpu" and missing:
        raise RuntimeError(f"clock='gpu' cannot be had: {missing}. Use clock='auto' or 'host'")
    return "host" if requested == "host" or missing else "gpu"


def judge(
    results: Iterable[LatencyResult],
    clock: str = "auto",
    max_p95_spread: float = 0.10,
    schedule: str = "consecutive",
) -> Validation:
    """Apply the criterion, spread = (max - min) / mean of the runs' p95, to every clock there is.

    Raises
    ------
    ValueError
        Fewer than two runs.
    RuntimeError
        clock="gpu" was asked for and a run has no GPU clock.
    """
    results = tuple(results)
    if len(results) < 2:
        raise ValueError(f"a verdict compares at least two runs, got {len(results)}: measure more")
    deciding = deciding_clock(clock, results)
    verdicts = {
        name: _judge_clock(name, results, max_p95_spread)
        for name in CLOCKS
        if all(getattr(r, name) is not None for r in results)
    }
    return Validation(results, deciding, max_p95_spread, schedule, verdicts)


def _judge_clock(clock: str, results: tuple[LatencyResult, ...], limit: float) -> ClockVerdict:
    summaries = [getattr(r, clock) for r in results]
    p95 = tuple(s.p95 for s in summaries)
    means = tuple(s.mean for s in summaries)
    met = spread(p95) < limit
    causes = () if met else find_causes(clock, results, limit)
    return ClockVerdict(clock, p95, means, spread(p95), spread(means), met, causes)
