"""The two clocks of the benchmark; the only module that reads latencies.

Host clock: `time.perf_counter_ns` around forward + synchronize, what a caller waits.
GPU clock: CUDA events around each forward while a gate kernel holds the stream and several forwards
queue behind it, so that the GPU never waits for Python: back-to-back device time, warm caches.
The gate is opened by the host once everything is queued (the idea of nvbench's blocking kernel) and
gives up by itself after a time-out, so that a model that synchronises inside cannot deadlock.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import torch

from helpers.clocks.kernels import compile_kernel, synchronizer
from helpers.clocks.profiling import count_kernels

QUEUE_PROBES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)  # forwards per batch that are tried, in order
MIN_GATE_TIMEOUT_MS = 50
MAX_GATE_TIMEOUT_MS = 1000

# Launches that a stream holds before the next one blocks, about 1,024 with the forward's events;
# CUDA_SCALE_LAUNCH_QUEUES changes it.
QUEUE_DEPTH = 900

# Why a model's work cannot be queued
LAUNCHES_BLOCK = "launches_block"
QUEUE_TOO_SHORT = "queue_too_short"
WAITS_INSIDE = "waits_inside"
HOST_TOO_SLOW = "host_too_slow"


class NotQueueableError(RuntimeError):
    """The model's work cannot be queued behind a closed gate, so the GPU clock does not apply.

    `reason` is one of the codes above; `taken_ms` (m,) are the samples taken until it gave up.
    """

    def __init__(self, reason: str, message: str, taken_ms: np.ndarray | None = None):
        super().__init__(message)
        self.reason = reason
        self.taken_ms = np.zeros(0) if taken_ms is None else taken_ms


@dataclass(frozen=True)
class GpuSamples:
    """What one call of `GpuClock.measure` read, in ms.

    `samples_ms` (n,) come from batches queued whole before the gate opened; `rejected_ms` (m,) from
    the `retried_batches` that were not, which are kept but never mixed in.
    """

    samples_ms: np.ndarray
    rejected_ms: np.ndarray
    retried_batches: int


def host_latencies(
    call: Callable, inputs: Sequence[torch.Tensor], iterations: int, device: torch.device
) -> np.ndarray:
    """Time `iterations` forwards one by one with the host's clock.

    Returns (iterations,) float64 ms: forward + synchronize. The inputs are used in turn. What the
    model raises gets the attribute `forward`, the forward's index in this series.
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
    except BaseException as error:
        error.forward = i
        raise
    return elapsed_ns / 1e6


class GpuClock:
    """CUDA events around each forward, behind a gate that the host opens.

    What the model raises gets the attribute `forward`, as by `host_latencies`.

    Parameters
    ----------
    device
        A CUDA device; work must be launched on its current stream.
    before
        Work queued before each forward and left out of its sample, such as an L2 flush.

    Raises
    ------
    Exception
        Of any type: the gate cannot be compiled or launched here.
    """

    def __init__(self, device: torch.device, before: Callable[[], object] = lambda: None):
        self.device, self._before = device, before
        with torch.cuda.device(device):
            self._gate = compile_kernel("gate", device)
            self._opened = torch.zeros(1, dtype=torch.int32, pin_memory=True)
            self._timed_out = torch.zeros(1, dtype=torch.int32, pin_memory=True)
            self._starts, self._ends = (
                [torch.cuda.Event(enable_timing=True) for _ in range(max(QUEUE_PROBES))]
                for _ in range(2)
            )
        self.batch = 0  # forwards queued behind one gate; 0 until `adapt` has found it
        self.timeout_ms = MAX_GATE_TIMEOUT_MS

    def adapt(self, call: Callable, inputs: Sequence[torch.Tensor]) -> int:
        """Find how many forwards fit into the launch queue and keep it.

        A launch into a full queue blocks until the gate times out, so the largest batch whose gate
        was still shut after its last launch is the answer: nothing has to be known of the model.

        Raises
        ------
        NotQueueableError
            Not even one forward can be queued; its `reason` says why.
        """
        self.batch, self.timeout_ms = 0, MAX_GATE_TIMEOUT_MS
        for count in (1, *QUEUE_PROBES):  # the first twice: it may load modules, which waits
            _, shut, launch_ms = self._measure_batch(call, inputs, 0, count)
            if shut:
                self.batch = count
                # the next probe is at most twice as long: five times that is a stall, not slowness
                patience = 5 * 2 * count * launch_ms
                self.timeout_ms = int(np.clip(patience, MIN_GATE_TIMEOUT_MS, MAX_GATE_TIMEOUT_MS))
            elif count > 1:
                break
        if not self.batch:
            raise self._not_queueable(call, inputs[0])
        return self.batch

    def _not_queueable(self, call: Callable, batch) -> NotQueueableError:
        """Tell launches that wait by order, a queue that is too short, and a wait inside apart."""
        if launches_block():
            reason, why = LAUNCHES_BLOCK, "CUDA_LAUNCH_BLOCKING is set: no launch can be queued"
        elif (launches := count_kernels(call, batch, self.device) or 0) >= QUEUE_DEPTH:
            reason = QUEUE_TOO_SHORT
            why = (
                f"one forward launches {launches} kernels, more than the launch queue holds: set "
                "CUDA_SCALE_LAUNCH_QUEUES=4x before Python starts, or capture it in a graph"
            )
        else:
            reason = WAITS_INSIDE
            why = "the model waits for the GPU inside its forward (.item(), .cpu(), synchronize)"
        return NotQueueableError(reason, why)

    def measure(
        self, call: Callable, inputs: Sequence[torch.Tensor], iterations: int
    ) -> GpuSamples:
        """Take `iterations` samples in checked batches; batches whose gate opened early are redone.

        Raises
        ------
        NotQueueableError
            More batches were rejected than accepted batches were needed.
        """
        if not self.batch:
            self.adapt(call, inputs)
        samples, rejected, retried, done = np.zeros(iterations), [np.zeros(0)], 0, 0
        allowed = max(3, -(-iterations // self.batch))
        while done < iterations:
            count = min(self.batch, iterations - done)
            batch_ms, shut, _ = self._measure_batch(call, inputs, done, count)
            if shut:
                samples[done : done + count] = batch_ms
                done += count
                continue
            rejected.append(batch_ms)
            retried += 1
            if retried > allowed:
                raise NotQueueableError(
                    HOST_TOO_SLOW,
                    f"the host did not queue {count} forwards within {self.timeout_ms} ms, "
                    f"{retried} times; {done} of {iterations} samples taken. Free the CPU",
                    np.concatenate([samples[:done], *rejected]),
                )
        return GpuSamples(samples, np.concatenate(rejected), retried)

    def _measure_batch(self, call, inputs, first: int, count: int):
        """Queue `count` forwards behind the gate, open it, return (samples_ms, shut, launch_ms).

        `shut`: the gate was still closed when the last launch had returned, so that the GPU ran
        the batch back to back. `launch_ms`: the host's time to queue one forward.
        """
        opened, timed_out, kinds = self._opened, self._timed_out, len(inputs)
        starts, ends, before = self._starts, self._ends, self._before
        opened[0], timed_out[0], i = 0, 0, 0
        with torch.cuda.device(self.device):
            try:
                self._gate(opened.data_ptr(), timed_out.data_ptr(), np.int32(self.timeout_ms))
                start = perf_counter_ns()
                for i in range(count):
                    before()
                    starts[i].record()
                    call(inputs[(first + i) % kinds])
                    ends[i].record()
                launch_ms = (perf_counter_ns() - start) / 1e6 / count
                shut = not timed_out.item()
            except BaseException as error:
                error.forward = first + i
                raise
            finally:  # also when the model raises: never leave the stream held
                opened[0] = 1
                torch.cuda.synchronize(self.device)
        samples = [starts[i].elapsed_time(ends[i]) for i in range(count)]
        return np.array(samples), shut, launch_ms


def launches_block() -> bool:
    """Is every launch made to wait, by CUDA_LAUNCH_BLOCKING?"""
    return os.environ.get("CUDA_LAUNCH_BLOCKING", "0") not in ("", "0")
