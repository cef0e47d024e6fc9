"""Step 3: the latency of a model, by both clocks, under fixed conditions."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch

from helpers.clocks import GpuClock, NotQueueableError, host_latencies
from helpers.clocks.checks import (
    DISTINCT_INPUTS,
    check_count,
    check_output,
    check_repeats,
    check_unchanged,
    device_of,
    move_inputs,
    phase,
)
from helpers.clocks.conditions import ConditionsSeen, measuring_conditions
from helpers.clocks.warmup import Warmup, warm_up
from helpers.environment.facts import first_line
from helpers.stats import LatencySummary, summarise

__all__ = [
    "DISTINCT_INPUTS",
    "Bench",
    "LatencyResult",
    "Run",
    "benchmark_latency",
    "move_inputs",
    "prepared",
]

# Why a result has no figure of the GPU's clock, beside the reasons of `NotQueueableError`.
NO_GPU = "no_gpu"
NOT_ASKED = "not_asked"
NO_KERNELS = "no_kernels"

BLOCK = 100  # samples per block; between blocks other things may be looked at, never inside


@dataclass(frozen=True)
class LatencyResult:
    """One run's latencies and the conditions they were measured in; durations in ms.

    `host`: perf_counter around forward + synchronize. `gpu`: CUDA events behind a full queue, None
    on a CPU or where the model cannot be queued: then `gpu_unavailable` is the code of the reason
    and `gpu_unavailable_why` its words.
    `warmup_ms` (warmup_used,) are the warm-up's host latencies, never part of the statistics;
    `steady`: they and the SM clock had settled. `rejected_gpu_ms`: samples of batches whose gate
    opened too early, kept but apart. `launch_ms`: host time to launch one forward (None without GPU
    clock). `wall_s`: wall time of the measured part, {"host": s, "gpu": s}.
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
    gpu_unavailable_why: str = ""


def benchmark_latency(
    model: Callable,
    dataloader: Iterable,
    warmup_iters: int = 50,
    measure_iters: int = 500,
    *,
    device: torch.device | str | None = None,
    precision: str = "fp32",
    clock: str = "auto",
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
        A minimum: the warm-up goes on, up to 200 iterations or 60 s, until latencies and the GPU's
        SM clock are steady.
    measure_iters
        Samples per clock, one per forward.
    device
        Where to measure; by default where the model's parameters are.
    precision
        "fp32" (strict: no TF32), "tf32", or "default" (PyTorch's switches as they are).
    clock
        "host" leaves the GPU's clock out; anything else reads both where there are two.
    between_blocks
        Called before, after and between blocks of samples; never while one is timed.

    Raises
    ------
    ValueError
        No batch, unequal batches, too few iterations, unknown precision, a model elsewhere than
        on `device`, that changes its inputs, or whose output is no finite tensor of one shape.
    ModelError
        The model raised; the message says what, in which phase and iteration.
    """
    settings = {"device": device, "precision": precision, "clock": clock}
    with prepared(model, dataloader, warmup_iters, **settings) as bench:
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
    clock: str = "auto",
) -> Iterator["Bench"]:
    """Everything that comes before the first sample; yields a warm `Bench`, restores on exit."""
    check_count("warmup_iters", warmup_iters)
    device = torch.device(device) if device is not None else device_of(model)
    inputs = move_inputs(dataloader, device)
    with measuring_conditions(model, precision) as seen:
        bench = Bench(model, inputs, device, precision, seen, clock)
        bench.warm_up(warmup_iters)
        bench.check()
        yield bench
        bench.check()  # a figure of a model that changed meanwhile is never returned


class Bench:
    """A warm model with its inputs on the device; makes runs that measure block by block."""

    def __init__(self, model, inputs, device, precision, seen: ConditionsSeen, clock="auto"):
        self.model, self.inputs, self.device = model, inputs, device
        self._originals = [batch.to("cpu", copy=True) for batch in inputs]
        self._shape: tuple[int, ...] = ()
        self.precision, self.seen = precision, seen
        self.warmup = Warmup(np.zeros(0), steady=False)
        self.gpu_clock: GpuClock | None = None
        self.gpu_unavailable = (
            (NOT_ASKED, "clock='host' leaves it out")
            if device.type == "cuda"
            else (NO_GPU, "no CUDA GPU")
        )
        self._wants_gpu_clock = device.type == "cuda" and clock != "host"

    def warm_up(self, warmup_iters: int) -> None:
        """Run until latencies and clocks are steady, then adapt the GPU's clock to the model."""
        self._shape = check_output(self.model, self.inputs[0], self.device)
        check_unchanged(self.inputs, self._originals)
        check_repeats(self.model, self.inputs[0])
        self.warmup = warm_up(self.model, self.inputs, warmup_iters, self.device)
        if self._wants_gpu_clock:
            self._start_gpu_clock()

    def check(self) -> None:
        """Raise where the model has changed its inputs or the shape of its output."""
        check_unchanged(self.inputs, self._originals)
        shape = check_output(self.model, self.inputs[-1], self.device)
        if shape != self._shape:
            raise ValueError(
                f"the model's output had shape {self._shape} and now has {shape}: its forwards "
                "are not the same work, give it inputs and a state for which they are"
            )

    def _start_gpu_clock(self) -> None:
        try:
            clock = GpuClock(self.device)
        except Exception as error:  # whatever the compiler or the driver raise: the host goes on
            self.gpu_unavailable = NO_KERNELS, first_line(error)
            return
        try:
            with phase("GPU clock's adaptation"):
                clock.adapt(self.model, self.inputs)
        except NotQueueableError as error:
            self.gpu_unavailable = error.reason, str(error)
        else:
            self.gpu_clock, self.gpu_unavailable = clock, ("", "")

    def new_run(self, measure_iters: int) -> "Run":
        """Start a run of `measure_iters` samples per clock."""
        check_count("measure_iters", measure_iters)
        return Run(self, measure_iters)


class Run:
    """Collects one run's samples, block by block, so that runs may also take turns."""

    def __init__(self, bench: Bench, measure_iters: int):
        self._bench, self._remaining, self._done = bench, measure_iters, 0
        self._host, self._gpu, self._wall = [], [], {"host": 0.0, "gpu": 0.0}
        self._given_up: NotQueueableError | None = None

    @property
    def complete(self) -> bool:
        """All samples are taken."""
        return self._remaining == 0

    def measure_block(self, size: int = BLOCK) -> None:
        """Take the next block of samples with the host clock, then with the GPU clock.

        One forward goes ahead unmeasured: what looked between the blocks has used the caches.
        """
        bench, count = self._bench, min(size, self._remaining)
        start = perf_counter()
        with phase("measurement by the host's clock", self._done):
            host_latencies(bench.model, bench.inputs, 1, bench.device)
            self._host.append(host_latencies(bench.model, bench.inputs, count, bench.device))
        middle = perf_counter()
        if bench.gpu_clock is not None and self._given_up is None:
            with phase("measurement by the GPU's clock", self._done):
                self._measure_gpu(count)
        self._wall["host"] += middle - start
        self._wall["gpu"] += perf_counter() - middle
        self._remaining -= count
        self._done += count

    def _measure_gpu(self, count: int) -> None:
        bench = self._bench
        try:
            self._gpu.append(bench.gpu_clock.measure(bench.model, bench.inputs, count))
        except NotQueueableError as error:  # this run goes on with the host's clock alone
            self._given_up = error

    def result(self) -> LatencyResult:
        """Summarise a complete run; what a GPU clock that gave up had read is kept, but apart."""
        bench, taken, rejected = self._bench, self._gpu, [g.rejected_ms for g in self._gpu]
        gpu, (unavailable, why) = taken, bench.gpu_unavailable
        if self._given_up is not None:
            gpu, unavailable, why = [], self._given_up.reason, str(self._given_up)
            rejected += [*(g.samples_ms for g in taken), self._given_up.taken_ms]
        return LatencyResult(
            host=summarise(np.concatenate(self._host)),
            gpu=summarise(np.concatenate([g.samples_ms for g in gpu])) if gpu else None,
            gpu_unavailable=unavailable,
            gpu_unavailable_why=why,
            warmup_ms=bench.warmup.samples_ms,
            warmup_used=len(bench.warmup.samples_ms),
            steady=bench.warmup.steady,
            retried_batches=sum(g.retried_batches for g in taken),
            rejected_gpu_ms=np.concatenate(rejected) if rejected else np.zeros(0),
            queued_forwards=bench.gpu_clock.batch if bench.gpu_clock else 0,
            launch_ms=None,
            wall_s=self._wall,
            batch_size=bench.inputs[0].shape[0],
            input_shape=tuple(bench.inputs[0].shape),
            precision=bench.precision,
            device=str(bench.device),
            conditions=bench.seen,
        )
