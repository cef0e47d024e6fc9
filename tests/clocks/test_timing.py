import numpy as np
import pytest
import torch

from helpers.clocks import GpuClock, NotQueueableError, host_latencies, timing
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


def test_host_clock_takes_one_sample_per_forward_and_rotates_the_inputs():
    seen = []
    samples = host_latencies(seen.append, ["a", "b", "c"], 7, CPU)
    assert seen == ["a", "b", "c", "a", "b", "c", "a"]
    assert samples.shape == (7,)
    assert (samples >= 0).all()


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
        ("0", None, timing.WAITS_INSIDE, "item"),  # no profiler
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


@pytest.mark.gpu
def test_gpu_samples_are_those_of_known_spins():
    spin = compile_kernel("spin", CUDA)
    elapsed = torch.zeros(1, dtype=torch.int64, device=CUDA)
    work = lambda ns: spin(elapsed.data_ptr(), np.int32(ns))  # noqa: E731
    taken = GpuClock(CUDA).measure(work, [200_000], 40)
    assert taken.retried_batches == 0
    assert (taken.samples_ms >= 0.2).all()
    assert np.median(taken.samples_ms) == pytest.approx(0.204, abs=0.002)


def waits(x):
    return x.sum().item()


def waits_unseen_by_torch(x):
    torch.cuda.synchronize()
    return x


def launches_much(x):
    for _ in range(5_000):
        x = x + 1
    return x


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (waits, timing.WAITS_INSIDE),
        (waits_unseen_by_torch, timing.WAITS_INSIDE),
        (launches_much, timing.QUEUE_TOO_SHORT),
    ],
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
