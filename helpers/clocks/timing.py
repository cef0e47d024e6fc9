"""The two clocks; nothing else reads latencies.

Host clock: `time.perf_counter_ns` around forward + synchronize, what a caller waits.
GPU clock: CUDA events around each forward while a gate kernel holds the stream and several forwards
queue behind it, so that the GPU never waits for Python: back-to-back device time, warm caches.
The host opens the gate once everything is queued (the idea of nvbench's blocking kernel); it gives
up by itself after a time-out, so that a model that synchronises inside cannot deadlock.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns

import numpy as np
import torch

from helpers.clocks.kernels import compile_kernel, synchronizer
from helpers.clocks.profiling import count_kernels

QUEUE_PROBES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)  # forwards per batch that are tried, in order
MIN_GATE_TIMEOUT_MS, MAX_GATE_TIMEOUT_MS = 50, 1000
# Launches that a stream holds before the next one blocks, about 1,024 with the forward's events;
# CUDA_SCALE_LAUNCH_QUEUES changes it.
QUEUE_DEPTH = 900
# Why a model's work cannot be queued; NOT_QUEUEABLE: for one of the two before, unseen which.
LAUNCHES_BLOCK, HOST_TOO_SLOW = "launches_block", "host_too_slow"
WAITS_INSIDE, QUEUE_TOO_SHORT = "waits_inside", "queue_too_short"
NOT_QUEUEABLE = "not_queueable"


class NotQueueableError(RuntimeError):
    """A model's work cannot be queued behind a closed gate, so the GPU clock does not apply.

    `reason`: one of the codes above. `taken_ms` (m,): the samples taken until it gave up.
    """

    def __init__(self, reason: str, message: str, taken_ms: Sequence[float] = ()):
        super().__init__(message)
        self.reason, self.taken_ms = reason, taken_ms


@dataclass(frozen=True)
class GpuSamples:
    """(n,) ms of batches queued whole before the gate opened; (m,) ms of those that were not."""

    samples_ms: np.ndarray
    rejected_ms: np.ndarray
    retried_batches: int


def host_latencies(
    call: Callable, inputs: Sequence[torch.Tensor], iterations: int, device: torch.device
) -> np.ndarray:
    """Time `iterations` forwards one by one with the host's clock, the inputs in turn: (n,) ms."""
    synchronize, kinds = synchronizer(device), len(inputs)
    elapsed_ns = np.zeros(iterations, dtype=np.int64)
    synchronize()
    for i in range(iterations):
        start = perf_counter_ns()
        call(inputs[i % kinds])
        synchronize()
        elapsed_ns[i] = perf_counter_ns() - start
    return elapsed_ns / 1e6


class GpuClock:
    """CUDA events around each forward on the current stream, behind a gate that the host opens.

    Raises anything where the gate cannot be compiled or launched.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.batch = 0  # forwards queued behind one gate; 0 until `adapt` has found it
        self.timeout_ms = MAX_GATE_TIMEOUT_MS
        with torch.cuda.device(device):
            self._gate = compile_kernel("gate", device)
            self._opened = torch.zeros(1, dtype=torch.int32, pin_memory=True)
            self._timed_out = torch.zeros(1, dtype=torch.int32, pin_memory=True)
            event = partial(torch.cuda.Event, enable_timing=True)
            self._events = [(event(), event()) for _ in range(max(QUEUE_PROBES))]

    def adapt(self, call: Callable, inputs: Sequence[torch.Tensor]) -> int:
        """Find how many forwards fit into the launch queue, and keep it; NotQueueableError if none.

        A launch into a full queue blocks until the gate times out, so the largest batch whose gate
        was still shut after its last launch is the answer: nothing has to be known of the model.
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
        if os.environ.get("CUDA_LAUNCH_BLOCKING", "0") not in ("", "0"):
            return NotQueueableError(LAUNCHES_BLOCK, "CUDA_LAUNCH_BLOCKING is set")
        launches = count_kernels(call, batch, self.device)
        waits = "the model waits for the GPU inside its forward (.item(), .cpu(), synchronize)"
        short = f"it launches {launches or 'more'} kernels, more than the launch queue holds: set "
        short += "CUDA_SCALE_LAUNCH_QUEUES=4x before Python starts, or capture it in a graph"
        if launches is None:
            return NotQueueableError(NOT_QUEUEABLE, f"{waits}, or {short}")
        if launches < QUEUE_DEPTH:
            return NotQueueableError(WAITS_INSIDE, waits)
        return NotQueueableError(QUEUE_TOO_SHORT, short)

    def measure(
        self, call: Callable, inputs: Sequence[torch.Tensor], iterations: int
    ) -> GpuSamples:
        """Take `iterations` samples; batches whose gate opened too early are kept apart and redone.

        Raises NotQueueableError once more batches were rejected than are needed.
        """
        if not self.batch:
            self.adapt(call, inputs)
        samples, rejected, done = np.zeros(iterations), [], 0
        allowed = max(3, -(-iterations // self.batch))
        while done < iterations:
            count = min(self.batch, iterations - done)
            batch_ms, shut, _ = self._measure_batch(call, inputs, done, count)
            if shut:
                samples[done : done + count] = batch_ms
                done += count
                continue
            rejected.append(batch_ms)
            if len(rejected) > allowed:
                told = f"within {self.timeout_ms} ms the host did not queue {count} forwards, "
                told += f"{len(rejected)} times; {done} of {iterations} samples taken. Free the CPU"
                taken_ms = np.concatenate([samples[:done], *rejected])
                raise NotQueueableError(HOST_TOO_SLOW, told, taken_ms)
        return GpuSamples(samples, np.concatenate([np.zeros(0), *rejected]), len(rejected))

    def _measure_batch(self, call, inputs, first: int, count: int):
        """Queue `count` forwards behind the gate, open it, return (samples_ms, shut, launch_ms).

        `shut`: the gate was still closed after the last launch, so that the GPU ran the batch back
        to back. `launch_ms`: the host's time to queue one forward.
        """
        opened, timed_out, events = self._opened, self._timed_out, self._events[:count]
        opened[0], timed_out[0] = 0, 0
        with torch.cuda.device(self.device):
            try:
                self._gate(opened.data_ptr(), timed_out.data_ptr(), np.int32(self.timeout_ms))
                begun = perf_counter_ns()
                for i, (start, end) in enumerate(events):
                    start.record()
                    call(inputs[(first + i) % len(inputs)])
                    end.record()
                launch_ms = (perf_counter_ns() - begun) / 1e6 / count
                shut = not timed_out.item()
            finally:  # also when the model raises: never leave the stream held
                opened[0] = 1
                torch.cuda.synchronize(self.device)
        return np.array([start.elapsed_time(end) for start, end in events]), shut, launch_ms
