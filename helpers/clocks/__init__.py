"""The two clocks of the benchmark; the only module that reads latencies.

Host clock: `time.perf_counter_ns` around forward + synchronize, what a caller waits.
GPU clock: CUDA events around each forward while a gate kernel holds the stream and several forwards
queue behind it, so that the GPU never waits for Python: back-to-back device time, warm caches.
The gate is opened by the host once everything is queued (the idea of nvbench's blocking kernel) and
gives up by itself after a time-out, so that a model that synchronises inside cannot deadlock.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import torch

from helpers.clocks.kernels import compile_kernel

QUEUE_PROBES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)  # forwards per batch that are tried, in order
MIN_GATE_TIMEOUT_MS = 50
MAX_GATE_TIMEOUT_MS = 1000

# Launches that a stream holds before the next one blocks (CUDA_SCALE_LAUNCH_QUEUES changes it); the
# events around a forward take some of them.
QUEUE_DEPTH = 1_000

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


class ForwardError(RuntimeError):
    """The model raised (its error is the cause) in forward `index` of a series, from 0."""

    def __init__(self, index: int, error: BaseException):
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
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a sys.exit() in a model would end the notebook as if all well
        raise ForwardError(i, error) from error
    return elapsed_ns / 1e6


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
        """Find how many forwards fit into the launch queue (about 1,024 launches deep) and keep it.

        A launch into a full queue blocks until the gate times out, so the largest batch whose gate
        was still shut after its last launch is the answer: nothing has to be known of the model.

        Raises
        ------
        NotQueueableError
            Not even one forward can be queued; its `reason` says which of three things it is.
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
            raise self._not_queueable(call, inputs[0])
        return self.batch

    def _not_queueable(self, call: Callable, batch) -> NotQueueableError:
        """Tell launches that wait by order, a queue that is too short, and a wait inside apart."""
        if os.environ.get("CUDA_LAUNCH_BLOCKING", "0") not in ("", "0"):
            return NotQueueableError(
                LAUNCHES_BLOCK,
                "CUDA_LAUNCH_BLOCKING is set: every launch waits for the GPU, none can be queued. "
                "Unset it and restart the kernel",
            )
        launches = None if _waits_by_torch(call, batch) else _launches(call, batch, self.device)
        if launches is not None and launches >= 0.9 * QUEUE_DEPTH:
            return NotQueueableError(
                QUEUE_TOO_SHORT,
                f"one forward launches {launches:.0f} kernels, more than the launch queue holds "
                f"(about {QUEUE_DEPTH}): set CUDA_SCALE_LAUNCH_QUEUES=4x before Python starts, or "
                "capture the model in a graph (variant cudagraph)",
            )
        return NotQueueableError(
            WAITS_INSIDE,
            f"one forward did not return within {MAX_GATE_TIMEOUT_MS} ms while the GPU's stream "
            "was held: it waits for the GPU inside (.item(), .cpu(), synchronize). Remove the "
            "wait, or measure with clock='host'",
        )

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
                    HOST_TOO_SLOW,
                    f"{retried} batches of {count} forwards were not queued within the gate's "
                    f"{self.timeout_ms} ms, {done} of {iterations} samples taken: the host is too "
                    "busy to queue work, or its CPU quota too small. Free the CPU",
                    np.concatenate([samples[:done], *rejected]),
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
                self._gate(opened.data_ptr(), timed_out.data_ptr(), np.int32(self.timeout_ms))
                start = perf_counter_ns()
                for i in range(count):
                    before()
                    starts[i].record()
                    call(inputs[(first + i) % kinds])
                    ends[i].record()
                launch_ms = (perf_counter_ns() - start) / 1e6 / count
                shut = not timed_out.item()
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise ForwardError(first + i, error) from error
            finally:  # also when the model raises: never leave the stream held
                opened[0] = 1
                torch.cuda.synchronize(self.device)
        samples = [starts[i].elapsed_time(ends[i]) for i in range(count)]
        return np.array(samples), shut, launch_ms


def _waits_by_torch(call: Callable, batch) -> bool:
    """Does the model wait for the GPU by an operation of torch's, which torch then refuses?"""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():  # torch's, that this mode does not see every wait
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        call(batch)
    except RuntimeError as error:
        return "synchroniz" in str(error)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    return False


def _launches(call: Callable, batch, device: torch.device) -> float | None:
    """Kernels of one forward; None where no profiler sees them."""
    from helpers.clocks.profiling import kernels_of  # it needs this module's own clocks

    try:
        return kernels_of(call, batch, device)
    except Exception:  # beside the measurement: then the two causes cannot be told apart
        return None
