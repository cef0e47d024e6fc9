from itertools import count, cycle, repeat

import numpy as np
import pytest
import torch
from fakes import TinyNet

from helpers.clocks import GpuClock, NotQueueableError, timing, warmup
from helpers.clocks.kernels import compile_kernel

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SERIES = (lambda _: None, [None])


class QueueOf(GpuClock):
    """A GpuClock whose launch queue is imitated: `depth` forwards fit, chosen batches fail."""

    def __init__(self, depth, failing=()):
        self.device, self.batch = CPU, 0
        self.depth, self.failing, self.batches = depth, set(failing), 0

    def _measure_batch(self, call, inputs, first, count):
        self.batches += 1
        shut = count <= self.depth and self.batches not in self.failing
        return np.arange(first, first + count, dtype=float), shut, 0.5


@pytest.fixture
def clock():
    """A clock that has adapted to a queue of eight forwards."""
    found = QueueOf(8)
    found.adapt(*SERIES)
    return found


@pytest.mark.parametrize(
    ("depth", "failing", "batch"),
    [(1, (), 1), (7, (), 4), (14, (), 12), (1000, (), 64), (1000, {1}, 64)],
    ids=["one", "4", "12", "all", "a first call that waits"],
)
def test_the_batch_adapts_to_what_the_queue_holds(depth, failing, batch):
    clock = QueueOf(depth, failing)
    assert clock.adapt(*SERIES) == batch
    assert timing.MIN_GATE_TIMEOUT_MS <= clock.timeout_ms <= timing.MAX_GATE_TIMEOUT_MS


@pytest.mark.parametrize(
    ("blocking", "launches", "reason", "remedy"),
    [
        ("1", 68, timing.LAUNCHES_BLOCK, "CUDA_LAUNCH_BLOCKING"),
        ("0", 1_287, timing.QUEUE_TOO_SHORT, "CUDA_SCALE_LAUNCH_QUEUES"),  # swin_v2_s
        ("0", 68, timing.WAITS_INSIDE, "item"),
        ("0", None, timing.NOT_QUEUEABLE, "item.*CUDA_SCALE_LAUNCH_QUEUES"),  # no profiler
    ],
)
def test_why_a_forward_cannot_be_queued(monkeypatch, blocking, launches, reason, remedy):
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", blocking)
    monkeypatch.setattr(timing, "count_kernels", lambda *_: launches)
    with pytest.raises(NotQueueableError, match=remedy) as caught:
        QueueOf(0).adapt(*SERIES)
    assert caught.value.reason == reason


def test_a_rejected_batch_is_kept_apart_repeated_and_counted(clock):
    clock.failing = {clock.batches + 2}
    taken = clock.measure(*SERIES, 20)
    assert taken.retried_batches == 1
    assert taken.samples_ms.tolist() == list(range(20))
    assert taken.rejected_ms.tolist() == list(range(8, 16))


def test_it_gives_up_when_batches_keep_failing(clock):
    clock.depth = 0
    with pytest.raises(NotQueueableError, match="0 of 20 samples") as caught:
        clock.measure(*SERIES, 20)
    assert caught.value.reason == timing.HOST_TOO_SLOW
    assert len(caught.value.taken_ms) == 4 * 8  # what the rejected batches read is not lost


WARMUPS = {  # latencies, SM clocks, seconds at each look, windows that it takes, is it steady?
    "latencies agree": ([9, 5, 3, 2, 2, 2], repeat(None), 1, 5, True),
    "the SM clock agrees": (repeat(2.0), [345, 800, 1400, 1700, 1950, 1980], 1, 6, True),
    "latencies never": ((x * x for x in count(1)), repeat(1980), 1, 8, False),
    "the SM clock never": (repeat(2.0), cycle([1980, 1200]), 1, 8, False),
    "time is up": (count(1), repeat(None), 40, 1, False),
}


@pytest.mark.parametrize("case", WARMUPS)
def test_the_warm_up_ends_when_all_is_steady_or_at_its_bound_and_says_which(monkeypatch, case):
    *series, step, windows, steady = WARMUPS[case]
    latencies, clocks, seconds = *map(iter, series), count(step=step)
    read = lambda model, x, n, device: np.full(n, next(latencies))  # noqa: E731
    monkeypatch.setattr(warmup, "host_latencies", read)
    monkeypatch.setattr(warmup, "sm_clock_mhz", lambda handle: next(clocks))
    monkeypatch.setattr(warmup, "perf_counter", lambda: next(seconds))
    done = warmup.warm_up(TinyNet(), [torch.zeros(1, 3, 8, 8)], 50, CPU)
    assert done.steady == steady
    assert len(done.samples_ms) == windows * warmup.WARMUP_WINDOW


@pytest.mark.gpu
def test_gpu_samples_are_those_of_known_spins():
    spin = compile_kernel("spin", CUDA)
    elapsed = torch.zeros(1, dtype=torch.int64, device=CUDA)
    work = lambda ns: spin(elapsed.data_ptr(), np.int32(ns))  # noqa: E731
    taken = GpuClock(CUDA).measure(work, [200_000], 40)
    assert taken.retried_batches == 0
    assert (taken.samples_ms >= 0.2).all()
    assert np.median(taken.samples_ms) == pytest.approx(0.204, abs=0.002)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda x: x.sum().item(), timing.WAITS_INSIDE),
        (lambda x: torch.cuda.synchronize(), timing.WAITS_INSIDE),  # torch does not see it
        (lambda x: [x + 1 for _ in range(5_000)], timing.QUEUE_TOO_SHORT),
    ],
    ids=["a wait", "a wait unseen by torch", "5,000 launches"],
)
def test_a_wait_inside_and_a_short_queue_are_told_apart(model, reason):
    with pytest.raises(NotQueueableError) as caught:
        GpuClock(CUDA).adapt(model, [torch.ones(4, device="cuda")])
    assert caught.value.reason == reason


@pytest.mark.gpu
def test_no_toolkit_is_needed(monkeypatch):
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert GpuClock(CUDA).measure(*SERIES, 10).retried_batches == 0
