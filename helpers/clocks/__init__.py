"""The two clocks of the benchmark; the only module that reads latencies.

Host clock: `time.perf_counter_ns` around forward + synchronize, what a caller waits.
GPU clock: CUDA events around each forward while a gate kernel holds the stream and several forwards
queue behind it, so that the GPU never waits for Python: back-to-back device time, warm caches.
The gate is opened by the host once everything is queued (the idea of nvbench's blocking kernel) and
gives up by itself after a time-out, so that a model that synchronises inside cannot deadlock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import torch

QUEUE_PROBES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)  # forwards per batch that are tried, in order
MIN_GATE_TIMEOUT_MS = 50
MAX_GATE_TIMEOUT_MS = 1000

# %globaltimer is the GPU's own nanosecond counter; it does not follow the SM clock.
KERNELS = r"""
__device__ __forceinline__ unsigned long long now_ns() {
    unsigned long long t;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
    return t;
}
extern "C" __global__ void gate(volatile int* opened, volatile int* timed_out, int timeout_ms) {
    unsigned long long deadline = now_ns() + timeout_ms * 1000000ULL;
    while (!*opened) {
        if (now_ns() > deadline) { *timed_out = 1; __threadfence_system(); return; }
    }
}
extern "C" __global__ void spin(long long* elapsed_ns, int duration_ns) {
    unsigned long long start = now_ns(), now = start;
    while (now - start < (unsigned long long)duration_ns) now = now_ns();
    *elapsed_ns = (long long)(now - start);
}
"""


class NotQueueableError(RuntimeError):
    """The model's work cannot be queued behind a closed gate, so the GPU clock does not apply."""


class ForwardError(RuntimeError):
    """The model raised (its error is the cause) in forward `index` of a series, from 0."""

    def __init__(self, index: int, error: Exception):
        super().__init__(f"the model raised {type(error).__name__} in forward {index}: {error}")
        self.index = index


@dataclass(frozen=True)
class GpuSamples:
    """What one call of `GpuClock.measure` read, all in ms.

    `samples_ms` (n,) come from batches queued whole before the gate opened; `rejected_ms` (m,) from
    the batches that were not, which are kept but never mixed in; `retried_batches` counts them.
    `launch_ms` (batches,) is the host's time to queue one forward, a mean for each batch.
    """

    samples_ms: np.ndarray
    rejected_ms: np.ndarray
    retried_batches: int
    launch_ms: np.ndarray


def synchronizer(device: torch.device) -> Callable[[], None]:
    """Return the function that waits until `device` has finished: a no-op on a CPU."""
    if device.type != "cuda":
        return lambda: None
    return lambda: torch.cuda.synchronize(device)


def host_latencies(
    call: Callable, inputs: Sequence[torch.Tensor], iterations: int, device: torch.device
) -> np.ndarray:
    """Time `iterations` forwards one by one with the host's clock.

    Returns (iterations,) float64 ms: forward + synchronize. The inputs are used in turn.

    Raises
    ------
    ForwardError
        The model raised.
    """
    synchronize, kinds = synchronizer(device), len(inputs)
    elapsed_ns = np.zeros(iterations, dtype=np.int64)
    synchronize()
    i = 0
    try:  # outside the loop: it costs nothing inside
        for i in range(iterations):
            start = perf_counter_ns()
            call(inputs[i % kinds])
            synchronize()
            elapsed_ns[i] = perf_counter_ns() - start
    except Exception as error:
        raise ForwardError(i, error) from error
    return elapsed_ns / 1e6


def compile_kernel(name: str):
    """Compile one of this module's CUDA kernels for the current GPU, by the NVRTC in torch's wheel.

    Raises
    ------
    RuntimeError
        torch has no run-time compiler for CUDA sources (before 2.9), or it failed.
    """
    compiler = getattr(torch.cuda, "_compile_kernel", None)
    if compiler is None:
        raise RuntimeError(
            f"torch {torch.__version__} cannot compile CUDA kernels at run time, which the GPU "
            "clock needs: install torch >= 2.9, or measure with clock='host'"
        )
    return compiler(KERNELS, name)


class GpuClock:
    """CUDA events around each forward, behind a gate that the host opens.

    Parameters
    ----------
    device
        A CUDA device; work must be launched on its current stream.
    before
        Work queued before each forward and left out of its sample, such as an L2 flush.

    Raises
    ------
    RuntimeError
        The gate kernel cannot be compiled here.
    """

    def __init__(self, device: torch.device, before: Callable[[], object] = lambda: None):
        self.device, self._before = device, before
        with torch.cuda.device(device):
            self._gate = compile_kernel("gate")
            self._opened = torch.zeros(1, dtype=torch.int32, pin_memory=True)
            self._timed_out = torch.zeros(1, dtype=torch.int32, pin_memory=True)
            self._starts, self._ends = (
                [torch.cuda.Event(enable_timing=True) for _ in range(max(QUEUE_PROBES))]
                for _ in range(2)
            )
        self.batch = 0  # forwards queued behind one gate; 0 until `adapt` has found it
        self.timeout_ms = MAX_GATE_TIMEOUT_MS

    def adapt(self, call: Callable, inputs: Sequence[torch.Tensor]) -> int:
        """Find how many forwards fit into the launch queue (about 1,024 launches deep) and keep it.

        A launch into a full queue blocks until the gate times out, so the largest batch whose gate
        was still shut after its last launch is the answer: nothing has to be known of the model.

        Raises
        ------
        NotQueueableError
            Even one forward waits for the GPU (`.item()`, `.cpu()`, a synchronize inside).
        ForwardError
            The model raised.
        """
        self.batch, self.timeout_ms = 0, MAX_GATE_TIMEOUT_MS
        for count in QUEUE_PROBES:
            _, shut, launch_ms = self._measure_batch(call, inputs, 0, count)
            if not shut and count == 1:  # once more: a first call may load modules, which waits
                _, shut, launch_ms = self._measure_batch(call, inputs, 0, count)
            if not shut:
                break
            self.batch = count
            # the next probe is at most twice as long: five times that is a stall, not slowness
            patience = 5 * 2 * count * launch_ms
            self.timeout_ms = int(np.clip(patience, MIN_GATE_TIMEOUT_MS, MAX_GATE_TIMEOUT_MS))
        if not self.batch:
            raise NotQueueableError(
                f"one forward did not return within {MAX_GATE_TIMEOUT_MS} ms while the GPU's "
                "stream was held: it waits for the GPU inside (.item(), .cpu(), synchronize). "
                "Remove the wait, or measure with clock='host'"
            )
        return self.batch

    def measure(
        self, call: Callable, inputs: Sequence[torch.Tensor], iterations: int
    ) -> GpuSamples:
        """Take `iterations` samples in checked batches; batches whose gate opened early are redone.

        Raises
        ------
        NotQueueableError
            More batches were rejected than accepted batches were needed.
        ForwardError
            The model raised.
        """
        if not self.batch:
            self.adapt(call, inputs)
        samples, rejected, launches, retried = np.zeros(iterations), [], [], 0
        done, allowed = 0, max(3, -(-iterations // self.batch))
        while done < iterations:
            count = min(self.batch, iterations - done)
            batch_ms, shut, launch_ms = self._measure_batch(call, inputs, done, count)
            if shut:
                samples[done : done + count] = batch_ms
                launches.append(launch_ms)
                done += count
                continue
            rejected.append(batch_ms)
            retried += 1
            if retried > allowed:
                raise NotQueueableError(
                    f"{retried} batches of {count} forwards were not queued within the gate's "
                    f"{self.timeout_ms} ms, {done} of {iterations} samples taken: the host is too "
                    "busy to queue work. Free the CPU, or measure with clock='host'"
                )
        kept = np.concatenate(rejected) if rejected else np.zeros(0)
        return GpuSamples(samples, kept, retried, np.array(launches))

    def _measure_batch(self, call, inputs, first: int, count: int):
        """Queue `count` forwards behind the gate, open it, return (samples_ms, shut, launch_ms).

        `shut`: the gate was still closed when the last launch had returned, so that the GPU ran
        the batch back to back.
        """
        opened, timed_out, kinds = self._opened, self._timed_out, len(inputs)
        starts, ends, before = self._starts, self._ends, self._before
        opened[0], timed_out[0], i = 0, 0, 0
        with torch.cuda.device(self.device):
            try:
                self._gate(args=[opened, timed_out, self.timeout_ms])
                start = perf_counter_ns()
                for i in range(count):
                    before()
                    starts[i].record()
                    call(inputs[(first + i) % kinds])
                    ends[i].record()
                launch_ms = (perf_counter_ns() - start) / 1e6 / count
                shut = not timed_out.item()
            except Exception as error:
                raise ForwardError(first + i, error) from error
            finally:  # also when the model raises: never leave the stream held
                opened[0] = 1
                torch.cuda.synchronize(self.device)
        samples = [starts[i].elapsed_time(ends[i]) for i in range(count)]
        return np.array(samples), shut, launch_ms
