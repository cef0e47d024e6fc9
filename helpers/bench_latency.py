"""Step 3: the latency of a model, by both clocks, under fixed conditions."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from helpers.clocks import checks
from helpers.clocks.conditions import ConditionsSeen, measuring_conditions, modules_of
from helpers.clocks.graph import GraphReading, graph_latencies
from helpers.clocks.timing import GpuClock, NotQueueableError, host_latencies
from helpers.clocks.warmup import Warmup, warm_up
from helpers.environment.facts import first_line
from helpers.environment.readings import Look, Looker, Process, this_process
from helpers.stats import MIN_SAMPLES_FOR_P95, LatencySummary, summarise

# Why a run has no figure of the GPU clock, beside the reasons of `NotQueueableError`.
NO_GPU, NOT_ASKED, NO_KERNELS = "no_gpu", "not_asked", "no_kernels"

BLOCK = 100  # samples per block; between blocks other things may be looked at, never inside


@dataclass(frozen=True, eq=False)
class Run:
    """Everything of one execution: samples, conditions, and who else was there; durations in ms."""

    host: LatencySummary
    gpu: LatencySummary | None  # None on a CPU or where the model cannot be queued:
    no_gpu_clock: str  # then the reason's code,
    no_gpu_clock_why: str  # and its words
    rejected_gpu_ms: np.ndarray  # samples of batches whose gate opened too early
    retried_batches: int
    warmup: Warmup
    conditions: ConditionsSeen
    looks: tuple[Look, ...]  # before, between and after the blocks of `block` samples
    process: Process  # the one that measured
    precision: str
    input_shape: tuple[int, ...]
    device: str
    block: int = BLOCK
    graph: GraphReading | None = None  # the same model as a CUDA graph, where it was asked for

    @property
    def batch_size(self) -> int:
        """Images per forward."""
        return self.input_shape[0]

    def __repr__(self) -> str:
        lines = [f"{self.device}, {self.precision}, input {'x'.join(map(str, self.input_shape))}"]
        for name in ("gpu", "host"):
            if s := getattr(self, name):
                p95 = f"{s.p95:.4g} ms" if s.n >= MIN_SAMPLES_FOR_P95 else "not estimable"
                levels = f"mean {s.mean:.4g} ms, p50 {s.p50:.4g} ms, p95 {p95}"
                lines.append(f"{name} clock: {levels}, {s.n} samples")
        if self.gpu is None:
            lines.append(f"no GPU clock: {self.no_gpu_clock_why}")
        return "\n".join(lines)


def benchmark_latency(
    model: Callable,
    dataloader: Iterable,
    warmup_iters: int = 50,
    measure_iters: int = 500,
    *,
    device: torch.device | str | None = None,
    precision: str = "fp32",
    clock: str = "auto",
    graph: bool = False,
) -> Run:
    """Measure the forward latency of `model` on batches of `dataloader`.

    The inputs are moved to the device before the loop; the model runs in eval and inference mode
    (which includes no_grad) with TF32 off, and every switch is restored afterwards.

    dataloader: yields inputs (N, ...) or (inputs, labels); the first few batches are used in turn
    warmup_iters: a minimum: until latencies and the GPU's SM clock are steady, or 200, or 60 s
    measure_iters: samples per clock, one per forward
    device: where to measure; by default where the model's parameters are
    precision: "fp32" (strict: no TF32), "tf32", or "default" (PyTorch's switches as they are)
    clock: "host" leaves the GPU's clock out; "auto" and "gpu", which needs a GPU, read both
    graph: read the model as a CUDA graph too, where there is a GPU clock: what launching costs

    ValueError: no batch, unequal batches, too few iterations, an unknown clock, a model that
    changes its inputs, or whose output is no finite tensor of one shape. RuntimeError: no GPU.
    """
    for name, value in {"warmup_iters": warmup_iters, "measure_iters": measure_iters}.items():
        if value < 1 or value != int(value):
            raise ValueError(f"{name}={value!r}: an integer of at least 1 is needed")
    with prepared(model, dataloader, warmup_iters, device, precision, clock) as bench:
        look, run = Looker(bench.device), Measuring(bench, measure_iters)
        run.saw(look())
        while not run.complete:
            run.measure_block()
            run.saw(look())
        bench.check()
        # Last: what a failed capture leaves behind must not cost the run.
        captured = graph and bench.gpu_clock
        return run.result(graph_latencies(model, bench.inputs, captured) if captured else None)


@contextmanager
def prepared(
    model, dataloader, warmup_iters, device=None, precision="fp32", clock="auto"
) -> Iterator["Bench"]:
    """Do everything before the first sample, as `benchmark_latency` says; yields the `Bench`."""
    placed = (p.device for module in modules_of(model) for p in module.parameters())
    device = torch.device(next(placed, "cpu") if device is None else device)
    checks.check_clock(clock, device)
    inputs = checks.move_inputs(dataloader, device)
    with measuring_conditions(model, precision) as seen:
        bench = Bench(model, inputs, device, precision, seen, clock)
        bench.warm_up(warmup_iters)
        yield bench


class Bench:
    """A warm model with its inputs on the device."""

    def __init__(self, model, inputs, device, precision, seen: ConditionsSeen, clock="auto"):
        self.model, self.inputs, self.device = model, inputs, device
        self.precision, self.seen, self._asked = precision, seen, clock
        self._originals = [batch.to("cpu", copy=True) for batch in inputs]
        self._shape: tuple[int, ...] | None = None

    def warm_up(self, warmup_iters: int) -> None:
        """Run until latencies and clocks are steady, then adapt the GPU's clock to the model."""
        self.check()
        checks.check_repeats(self.model, self.inputs[0])
        self.warmup = warm_up(self.model, self.inputs, warmup_iters, self.device)
        self.gpu_clock, self.no_gpu_clock = self._start_gpu_clock()

    def check(self) -> None:
        """Raise where the output cannot be timed or has a new shape, or the inputs have changed."""
        shape = checks.check_output(self.model, self.inputs[-1], self.device)
        checks.check_unchanged(self.inputs, self._originals)
        if self._shape not in (None, shape):
            told = f"the model's output had shape {self._shape} and now has {shape}"
            raise ValueError(f"{told}: its forwards are not the same work, make them so")
        self._shape = shape

    def _start_gpu_clock(self) -> tuple[GpuClock | None, tuple[str, str]]:
        """Return the clock, or None with the code and the words of the reason."""
        if self.device.type != "cuda":
            return None, (NO_GPU, "no CUDA GPU")
        if self._asked == "host":
            return None, (NOT_ASKED, "clock='host' leaves it out")
        try:
            clock = GpuClock(self.device)
        except Exception as error:  # whatever the compiler or the driver raise: the host goes on
            return None, (NO_KERNELS, first_line(error))
        try:
            with checks.phase("GPU clock's adaptation"):
                clock.adapt(self.model, self.inputs)
        except NotQueueableError as error:
            return None, (error.reason, str(error))
        return clock, ("", "")


class Measuring:
    """Collects one run's samples, so many per clock, in blocks: several models may take turns."""

    def __init__(self, bench: Bench, measure_iters: int):
        self._bench, self._total, self._done, self._block = bench, measure_iters, 0, 0
        self._host, self._gpu, self._looks = [], [], []
        self._given_up: NotQueueableError | None = None

    @property
    def complete(self) -> bool:
        """All samples are taken."""
        return self._done == self._total

    def saw(self, look: Look) -> None:
        """Keep a look taken before, between or after blocks; never while a sample is timed."""
        self._looks.append(look)

    def measure_block(self, size: int = BLOCK) -> None:
        """Take the next block of samples with the host clock, then with the GPU clock.

        One forward goes ahead unmeasured: what looked between the blocks has used the caches.
        """
        bench, count = self._bench, min(size, self._total - self._done)
        model, inputs = bench.model, bench.inputs
        with checks.phase("measurement by the host's clock"):
            host_latencies(model, inputs, 1, bench.device)
            self._host.append(host_latencies(model, inputs, count, bench.device))
        if bench.gpu_clock and not self._given_up:
            try:
                with checks.phase("measurement by the GPU's clock"):
                    self._gpu.append(bench.gpu_clock.measure(model, inputs, count))
            except NotQueueableError as error:  # this run goes on with the host's clock alone
                self._given_up = error
        self._block = max(self._block, count)
        self._done += count

    def result(self, graph: GraphReading | None = None) -> Run:
        """Summarise a complete run; what a GPU clock that gave up had read is kept, but apart."""
        bench, taken, rejected = self._bench, self._gpu, [g.rejected_ms for g in self._gpu]
        gpu, (reason, why) = [g.samples_ms for g in taken], bench.no_gpu_clock
        if self._given_up:
            rejected += [*gpu, self._given_up.taken_ms]
            gpu, reason, why = [], self._given_up.reason, str(self._given_up)
        return Run(
            host=summarise(np.concatenate(self._host)),
            gpu=summarise(np.concatenate(gpu)) if gpu else None,
            no_gpu_clock=reason,
            no_gpu_clock_why=why,
            rejected_gpu_ms=np.concatenate([np.zeros(0), *rejected]),
            retried_batches=sum(g.retried_batches for g in taken),
            warmup=bench.warmup,
            conditions=bench.seen,
            looks=tuple(self._looks),
            process=this_process(),
            precision=bench.precision,
            input_shape=tuple(bench.inputs[0].shape),
            device=str(bench.device),
            block=self._block,
            graph=graph,
        )
