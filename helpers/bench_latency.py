"""Step 3: the latency of a model, by both clocks, under fixed conditions."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import numpy as np
import torch

from helpers.clocks import GpuClock, NotQueueableError, host_latencies
from helpers.conditions import ConditionsSeen, measuring_conditions, modules_of
from helpers.stats import LatencySummary, percentile, summarise

DISTINCT_INPUTS = 8  # several images, rotated: one image alone may be a special case
BLOCK = 100  # samples per block; between blocks other things may be looked at, never inside
WARMUP_WINDOW = 25  # the warm-up is steady when two windows of this many samples agree
WARMUP_MAX_ITERS = 200
WARMUP_MAX_S = 60.0
STEADY_TOLERANCE = 0.05  # relative difference of two windows' medians


@dataclass(frozen=True)
class LatencyResult:
    """One run's latencies and the conditions they were measured in; durations in ms.

    `host`: perf_counter around forward + synchronize. `gpu`: CUDA events behind a full queue, None
    on a CPU or where the model cannot be queued, and then `gpu_unavailable` says why.
    `warmup_ms` (warmup_used,) are the warm-up's host latencies, never part of the statistics;
    `steady`: they had settled. `rejected_gpu_ms`: samples of batches whose gate opened too early,
    kept but apart. `launch_ms`: host time to launch one forward (None without GPU clock).
    `wall_s`: wall time of the measured part, {"host": s, "gpu": s}.
    """

    host: LatencySummary
    gpu: LatencySummary | None
    gpu_unavailable: str
    warmup_ms: np.ndarray
    warmup_used: int
    steady: bool
    retried_batches: int
    rejected_gpu_ms: np.ndarray
    queued_forwards: int
    launch_ms: float | None
    wall_s: dict[str, float]
    batch_size: int
    input_shape: tuple[int, ...]
    precision: str
    device: str
    conditions: ConditionsSeen


def benchmark_latency(
    model: Callable,
    dataloader: Iterable,
    warmup_iters: int = 50,
    measure_iters: int = 500,
    *,
    device: torch.device | str | None = None,
    precision: str = "fp32",
    between_blocks: Callable[[], None] = lambda: None,
) -> LatencyResult:
    """Measure the forward latency of `model` on batches of `dataloader`.

    The inputs are moved to the device once, before the loop; the model runs in eval and inference
    mode (which includes no_grad) with TF32 off, and every switch is restored afterwards.

    Parameters
    ----------
    dataloader
        Yields inputs (N, ...) or (inputs, labels); the first few batches are used in turn, and
        their batch size N >= 1 is recorded.
    warmup_iters
        A minimum: the warm-up goes on, up to 200 iterations or 60 s, until latencies are steady.
    measure_iters
        Samples per clock, one per forward.
    device
        Where to measure; by default where the model's parameters are.
    precision
        "fp32" (strict: no TF32), "tf32", or "default" (PyTorch's switches as they are).
    between_blocks
        Called before, after and between blocks of samples; never while one is timed.

    Raises
    ------
    ValueError
        No batch, unequal batches, too few iterations, unknown precision.
    RuntimeError
        What the model itself raised, named with the iteration's phase.
    """
    with prepared(model, dataloader, warmup_iters, device=device, precision=precision) as bench:
        run = bench.new_run(measure_iters)
        while not run.complete:
            between_blocks()
            run.measure_block()
        between_blocks()
        return run.result()


@contextmanager
def prepared(
    model: Callable,
    dataloader: Iterable,
    warmup_iters: int = 50,
    *,
    device: torch.device | str | None = None,
    precision: str = "fp32",
) -> Iterator["Bench"]:
    """Everything that comes before the first sample; yields a warm `Bench`, restores on exit."""
    if warmup_iters < 1:
        raise ValueError(f"warmup_iters={warmup_iters}: at least 1 is needed")
    device = torch.device(device) if device is not None else _device_of(model)
    inputs = move_inputs(dataloader, device)
    with measuring_conditions(model, precision) as seen:
        bench = Bench(model, inputs, device, precision, seen)
        bench.warm_up(warmup_iters)
        yield bench


def move_inputs(dataloader: Iterable, device: torch.device) -> list[torch.Tensor]:
    """Move the first `DISTINCT_INPUTS` batches to `device`, once, before any timing.

    Raises
    ------
    ValueError
        No batch, an empty batch, something that is no floating-point tensor, or unequal shapes.
    """
    batches = [
        b[0] if isinstance(b, (tuple, list)) else b for b in islice(dataloader, DISTINCT_INPUTS)
    ]
    if not batches:
        raise ValueError("the data loader yields no batch: give it at least one image")
    for index, batch in enumerate(batches):
        if not isinstance(batch, torch.Tensor) or not batch.is_floating_point():
            kind = getattr(batch, "dtype", type(batch).__name__)
            raise ValueError(
                f"batch {index} of the data loader is {kind}, not a floating-point tensor: "
                "apply the test transform, which scales and normalises"
            )
        if batch.shape != batches[0].shape or not batch.numel():
            raise ValueError(
                f"batch {index} of the data loader has shape {tuple(batch.shape)}, batch 0 "
                f"{tuple(batches[0].shape)}: latencies need batches of one size (drop_last=True)"
            )
        if not torch.isfinite(batch).all():
            raise ValueError(
                f"batch {index} of the data loader holds NaN or infinity: mend the data"
            )
    return [batch.to(device) for batch in batches]


def _device_of(model: Callable) -> torch.device:
    parameter = next((p for m in modules_of(model) for p in m.parameters()), None)
    return parameter.device if parameter is not None else torch.device("cpu")


class Bench:
    """A warm model with its inputs on the device; makes runs that measure block by block."""

    def __init__(self, model, inputs, device, precision, seen: ConditionsSeen):
        self.model, self.inputs, self.device = model, inputs, device
        self.precision, self.seen = precision, seen
        self.warmup_ms, self.steady = np.zeros(0), False
        self.gpu_clock, self.gpu_unavailable = None, "aucun GPU CUDA"

    def warm_up(self, warmup_iters: int) -> None:
        """Run until at least `warmup_iters` forwards are done and latencies are steady; bounded.

        The first iterations load modules, choose algorithms and raise an idle GPU's clock.
        """
        chunks, done, start = [], 0, perf_counter()
        self._check_output()
        while done < warmup_iters or not _steady(chunks):
            if done >= max(warmup_iters, WARMUP_MAX_ITERS) or perf_counter() - start > WARMUP_MAX_S:
                break
            chunks.append(
                host_latencies(
                    self.model, self.inputs, min(WARMUP_WINDOW, max(1, warmup_iters)), self.device
                )
            )
            done += len(chunks[-1])
        self.warmup_ms, self.steady = np.concatenate(chunks), _steady(chunks)
        if self.device.type == "cuda":
            self._start_gpu_clock()

    def _check_output(self) -> None:
        output = self.model(self.inputs[0])
        if not isinstance(output, torch.Tensor):
            raise ValueError(
                f"the model returned {type(output).__name__}, not a tensor of logits: wrap it in a "
                "function that returns the tensor to be timed"
            )
        if output.device.type != self.device.type:
            raise ValueError(
                f"the model's output is on {output.device}, the benchmark on {self.device}: "
                f"move the model with .to('{self.device}')"
            )
        if not torch.isfinite(output).all():
            raise ValueError("the model's output holds NaN or infinity: its latency means nothing")

    def _start_gpu_clock(self) -> None:
        try:
            self.gpu_clock = GpuClock(self.device)
            self.gpu_clock.adapt(self.model, self.inputs)
            self.gpu_unavailable = ""
        except NotQueueableError as error:
            self.gpu_clock, self.gpu_unavailable = None, str(error)

    def new_run(self, measure_iters: int) -> "Run":
        """Start a run of `measure_iters` samples per clock."""
        if measure_iters < 1:
            raise ValueError(f"measure_iters={measure_iters}: at least 1 is needed")
        return Run(self, measure_iters)


def _steady(chunks: list[np.ndarray]) -> bool:
    if len(chunks) < 2:
        return False
    before, now = np.median(chunks[-2]), np.median(chunks[-1])
    return bool(abs(now - before) <= STEADY_TOLERANCE * before)


class Run:
    """Collects one run's samples, block by block, so that runs may also take turns."""

    def __init__(self, bench: Bench, measure_iters: int):
        self._bench, self._remaining = bench, measure_iters
        self._host, self._gpu, self._wall = [], [], {"host": 0.0, "gpu": 0.0}

    @property
    def complete(self) -> bool:
        """All samples are taken."""
        return self._remaining == 0

    def measure_block(self) -> None:
        """Take the next block of samples with the host clock, then with the GPU clock."""
        bench, count = self._bench, min(BLOCK, self._remaining)
        start = perf_counter()
        self._host.append(host_latencies(bench.model, bench.inputs, count, bench.device))
        middle = perf_counter()
        if bench.gpu_clock is not None:
            self._gpu.append(bench.gpu_clock.measure(bench.model, bench.inputs, count))
        self._wall["host"] += middle - start
        self._wall["gpu"] += perf_counter() - middle
        self._remaining -= count

    def result(self) -> LatencyResult:
        """Summarise a complete run."""
        bench, gpu = self._bench, self._gpu
        launches = np.concatenate([g.launch_ms for g in gpu]) if gpu else None
        return LatencyResult(
            host=summarise(np.concatenate(self._host)),
            gpu=summarise(np.concatenate([g.samples_ms for g in gpu])) if gpu else None,
            gpu_unavailable=bench.gpu_unavailable,
            warmup_ms=bench.warmup_ms,
            warmup_used=len(bench.warmup_ms),
            steady=bench.steady,
            retried_batches=sum(g.retried_batches for g in gpu),
            rejected_gpu_ms=np.concatenate([g.rejected_ms for g in gpu]) if gpu else np.zeros(0),
            queued_forwards=bench.gpu_clock.batch if bench.gpu_clock else 0,
            launch_ms=percentile(launches, 0.5) if launches is not None else None,
            wall_s=self._wall,
            batch_size=bench.inputs[0].shape[0],
            input_shape=tuple(bench.inputs[0].shape),
            precision=bench.precision,
            device=str(bench.device),
            conditions=bench.seen,
        )
