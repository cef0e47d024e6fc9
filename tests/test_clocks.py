import numpy as np
import pytest
import torch

from helpers import clocks
from helpers.clocks import GpuClock, NotQueueableError, compile_kernel, host_latencies

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


def test_a_model_that_waits_for_the_gpu_is_named():
    with pytest.raises(NotQueueableError, match=r"\.item\(\).*clock='host'"):
        QueueOf(0).adapt(lambda _: None, [None])


def test_a_rejected_batch_is_kept_apart_repeated_and_counted():
    clock = QueueOf(8)
    clock.adapt(lambda _: None, [None])
    clock.failing = {clock.batches + 2}
    taken = clock.measure(lambda _: None, [None], 20)
    assert taken.retried_batches == 1
    assert taken.samples_ms.tolist() == list(range(20))
    assert taken.rejected_ms.tolist() == list(range(8, 16))
    assert len(taken.launch_ms) == 3


def test_it_gives_up_when_batches_keep_failing():
    clock = QueueOf(8)
    clock.adapt(lambda _: None, [None])
    clock.depth = 0
    with pytest.raises(NotQueueableError, match="0 of 20 samples"):
        clock.measure(lambda _: None, [None], 20)


def test_without_a_runtime_compiler_the_remedy_is_named(monkeypatch):
    monkeypatch.delattr(torch.cuda, "_compile_kernel", raising=False)
    with pytest.raises(RuntimeError, match=r"torch >= 2\.9.*clock='host'"):
        compile_kernel("gate")


@pytest.mark.gpu
def test_gpu_samples_are_those_of_known_spins():
    spin = compile_kernel("spin")
    elapsed = torch.zeros(1, dtype=torch.int64, device="cuda")
    clock = GpuClock(torch.device("cuda"))
    taken = clock.measure(lambda ns: spin(args=[elapsed, ns]), [200_000], 40)
    assert taken.retried_batches == 0
    assert (taken.samples_ms >= 0.2).all()
    assert np.median(taken.samples_ms) == pytest.approx(0.204, abs=0.002)


@pytest.mark.gpu
def test_a_model_that_synchronises_does_not_deadlock():
    clock = GpuClock(torch.device("cuda"))
    with pytest.raises(NotQueueableError):
        clock.measure(lambda x: x.sum().item(), [torch.ones(4, device="cuda")], 10)


@pytest.mark.gpu
def test_a_model_that_raises_leaves_no_stream_held():
    def broken(_):
        raise RuntimeError("broken model")

    with pytest.raises(RuntimeError, match="broken model"):
        GpuClock(torch.device("cuda")).measure(broken, [None], 10)
    torch.cuda.synchronize()  # returns at once: the gate is open
