import numpy as np
import pytest
import torch

from helpers import clocks
from helpers.clocks import GpuClock, NotQueueableError, host_latencies
from helpers.clocks.kernels import compile_kernel

CPU = torch.device("cpu")


class QueueOf(GpuClock):
    """A GpuClock whose launch queue is imitated: `depth` forwards fit, chosen batches fail."""

    def __init__(self, depth, failing=()):
        self.batch, self.timeout_ms = 0, clocks.MAX_GATE_TIMEOUT_MS
        self.depth, self.failing, self.batches = depth, set(failing), 0

    def _measure_batch(self, call, inputs, first, count):
        self.batches += 1
        for i in range(count):
            call(inputs[(first + i) % len(inputs)])
        shut = count <= self.depth and self.batches not in self.failing
        return np.arange(first, first + count, dtype=float), shut, 0.5


def test_host_clock_takes_one_sample_per_forward_and_rotates_the_inputs():
    seen = []
    samples = host_latencies(seen.append, ["a", "b", "c"], 7, CPU)
    assert seen == ["a", "b", "c", "a", "b", "c", "a"]
    assert samples.shape == (7,)
    assert (samples >= 0).all()


@pytest.mark.parametrize(("depth", "batch"), [(1, 1), (7, 4), (14, 12), (1000, 64)])
def test_the_batch_adapts_to_what_the_queue_holds(depth, batch):
    clock = QueueOf(depth)
    assert clock.adapt(lambda _: None, [None]) == batch
    assert clocks.MIN_GATE_TIMEOUT_MS <= clock.timeout_ms <= clocks.MAX_GATE_TIMEOUT_MS


def test_a_first_call_that_waits_gets_a_second_chance():
    assert QueueOf(1000, failing={1}).adapt(lambda _: None, [None]) == 64


@pytest.mark.parametrize(
    ("blocking", "launches", "reason"),
    [
        ("1", 68, clocks.LAUNCHES_BLOCK),
        ("0", 1_287, clocks.QUEUE_TOO_SHORT),
        ("0", 68, clocks.WAITS_INSIDE),
        ("0", None, clocks.WAITS_INSIDE),
    ],
    ids=["launches wait", "swin_v2_s", "waits", "no profiler"],
)
def test_why_a_forward_cannot_be_queued(monkeypatch, blocking, launches, reason):
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", blocking)
    monkeypatch.setattr(clocks, "count_kernels", lambda *_: launches)
    clock = QueueOf(0)
    clock.device = CPU
    with pytest.raises(NotQueueableError) as caught:
        clock.adapt(lambda _: None, [None])
    assert caught.value.reason == reason


def test_a_rejected_batch_is_kept_apart_repeated_and_counted():
    clock = QueueOf(8)
    clock.adapt(lambda _: None, [None])
    clock.failing = {clock.batches + 2}
    taken = clock.measure(lambda _: None, [None], 20)
    assert taken.retried_batches == 1
    assert taken.samples_ms.tolist() == list(range(20))
    assert taken.rejected_ms.tolist() == list(range(8, 16))


def test_it_gives_up_when_batches_keep_failing():
    clock = QueueOf(8)
    clock.adapt(lambda _: None, [None])
    clock.depth = 0
    with pytest.raises(NotQueueableError, match="0 of 20 samples") as caught:
        clock.measure(lambda _: None, [None], 20)
    assert caught.value.reason == clocks.HOST_TOO_SLOW
    assert len(caught.value.taken_ms) == 4 * 8  # what the rejected batches read is not lost


@pytest.mark.gpu
def test_gpu_samples_are_those_of_known_spins():
    cuda = torch.device("cuda")
    spin = compile_kernel("spin", cuda)
    elapsed = torch.zeros(1, dtype=torch.int64, device=cuda)
    clock = GpuClock(cuda)
    taken = clock.measure(lambda ns: spin(elapsed.data_ptr(), np.int32(ns)), [200_000], 40)
    assert taken.retried_batches == 0
    assert (taken.samples_ms >= 0.2).all()
    assert np.median(taken.samples_ms) == pytest.approx(0.204, abs=0.002)


@pytest.mark.gpu
def test_a_model_that_raises_leaves_no_stream_held():
    def broken(_):
        raise RuntimeError("broken model")

    with pytest.raises(RuntimeError, match="broken model") as caught:
        GpuClock(torch.device("cuda")).measure(broken, [None], 10)
    assert caught.value.forward == 0
    torch.cuda.synchronize()  # returns at once: the gate is open


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
        (waits, clocks.WAITS_INSIDE),
        (waits_unseen_by_torch, clocks.WAITS_INSIDE),
        (launches_much, clocks.QUEUE_TOO_SHORT),
    ],
)
def test_a_wait_inside_and_a_short_queue_are_told_apart(model, reason):
    with pytest.raises(NotQueueableError) as caught:
        GpuClock(torch.device("cuda")).adapt(model, [torch.ones(4, device="cuda")])
    assert caught.value.reason == reason


@pytest.mark.gpu
def test_no_toolkit_is_needed(monkeypatch):
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert GpuClock(torch.device("cuda")).measure(lambda _: None, [None], 10).retried_batches == 0
