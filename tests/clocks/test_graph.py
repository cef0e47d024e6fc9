import pytest
import torch
from fakes import TinyNet

from helpers.clocks import GpuClock, graph
from helpers.clocks.conditions import measuring_conditions
from helpers.clocks.graph import graph_latencies
from helpers.validation.processes import in_fresh_process

IMAGE = [torch.randn(1, 3, 8, 8)]


class Clock:
    """A GPU clock that has adapted to the eager model, and loses its GPU."""

    device, batch, timeout_ms = torch.device("cpu"), 12, 80

    def adapt(self, call, inputs):
        self.batch, self.timeout_ms = 64, 50

    def measure(self, call, inputs, count):
        raise RuntimeError("the GPU is lost")


@pytest.mark.parametrize("hindrance", ["cannot be captured", "the GPU is lost"])
def test_what_hinders_the_graph_is_said_and_the_clock_is_as_before(monkeypatch, hindrance):
    def capture(*_):
        if "captured" in hindrance:
            raise TypeError(hindrance)

    monkeypatch.setattr(graph, "_capture", capture)
    monkeypatch.setattr(graph, "count_kernels", lambda *_: 68)
    clock = Clock()
    reading = graph_latencies(TinyNet(), IMAGE, clock)
    assert (reading.samples_ms, reading.launches) == (None, 68)
    assert hindrance in reading.why
    assert (clock.batch, clock.timeout_ms) == (12, 80)


@pytest.mark.gpu
def test_a_graph_is_faster_than_its_launches_and_leaves_nothing_behind():
    device, model = torch.device("cuda", 0), TinyNet().cuda()
    inputs, clock = [IMAGE[0].cuda()], GpuClock(device)
    with measuring_conditions(model):
        expected = model(inputs[0])
        eager = clock.measure(model, inputs, 100).samples_ms
        torch.cuda.synchronize()
        stream, before = torch.cuda.current_stream(), torch.cuda.memory_allocated()
        reading = graph_latencies(model, inputs, clock)
        assert torch.equal(model(inputs[0]), expected)
    assert reading.why == ""
    assert reading.samples_ms.shape == (100,)
    assert reading.samples_ms.mean() < eager.mean()
    assert reading.launches > 1
    assert torch.cuda.current_stream() == stream
    assert torch.cuda.memory_allocated() <= before + (1 << 20)


def read_what_waits_inside():
    """A reading that fails, and what can be measured in this process afterwards."""
    device, inputs = torch.device("cuda", 0), [IMAGE[0].cuda()]
    clock, stream = GpuClock(device), torch.cuda.current_stream()
    reading = graph_latencies(lambda x: x * x.sum().item(), inputs, clock)
    same = torch.cuda.current_stream() == stream
    torch.cuda.empty_cache()  # the allocator has left the failed capture
    return reading, same, clock.measure(lambda x: x + 1, inputs, 50).samples_ms.shape


@pytest.mark.gpu
def test_a_model_that_waits_inside_has_no_graph_and_is_measured_on():
    """In a process of its own: torch 2.11's random numbers on the GPU do not survive a failure."""
    reading, same, shape = in_fresh_process(read_what_waits_inside)
    assert reading.samples_ms is None
    assert reading.why
    assert same
    assert shape == (50,)
