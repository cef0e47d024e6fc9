import gc
import os

import numpy as np
import pytest
import torch
from fakes import TinyNet
from torch.utils.data import DataLoader, TensorDataset

from helpers import bench_latency as bench
from helpers.bench_latency import Measuring, benchmark_latency, prepared
from helpers.clocks import NotQueueableError
from helpers.clocks.checks import DISTINCT_INPUTS
from helpers.clocks.timing import HOST_TOO_SLOW, GpuSamples
from helpers.clocks.warmup import WARMUP_MAX_ITERS


def loader(batch_size=1, images=16):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, 3, 8, 8, generator=generator)
    return DataLoader(TensorDataset(x, torch.zeros(images)), batch_size=batch_size)


def measured(ready, iterations):
    measuring = Measuring(ready, iterations)
    while not measuring.complete:
        measuring.measure_block()
    return measuring.result()


@pytest.fixture(scope="module")
def run():
    """Three blocks, of 100, 100 and 30 samples."""
    return benchmark_latency(TinyNet(), loader(), warmup_iters=5, measure_iters=230)


def test_one_sample_per_forward_in_milliseconds(run):
    host = run.host
    assert host.samples_ms.shape == (230,)
    assert 0 < host.mean < 1000
    assert (run.gpu, run.no_gpu_clock, run.precision) == (None, bench.NO_GPU, "fp32")


def test_looks_are_taken_before_between_and_after_the_blocks(run):
    assert len(run.looks) == 4
    assert run.process.pid == os.getpid()


def test_a_run_prints_its_figures_and_not_its_samples(run):
    assert f"p95 {run.host.p95:.4g} ms, 230 samples\nno GPU clock: no CUDA GPU" in str(run)
    assert len(repr(run)) < 400


def test_any_batch_size_is_measured_and_recorded():
    found = benchmark_latency(TinyNet(), loader(batch_size=4), 2, 19)
    assert (found.batch_size, found.input_shape) == (4, (4, 3, 8, 8))
    assert "p95 not estimable, 19 samples" in str(found)  # it would be about their maximum


def test_conditions_hold_inside_inputs_take_turns_and_the_model_is_as_before():
    model, seen, inputs = TinyNet().train(), set(), set()

    def watch(module, given, output):
        seen.add((module.training, torch.is_grad_enabled(), gc.isenabled()))
        inputs.add(given[0].data_ptr())

    model.register_forward_hook(watch)
    found = benchmark_latency(model, loader(), 2, 20)
    assert seen == {(False, False, False)}
    assert len(inputs) == DISTINCT_INPUTS  # moved once
    assert found.conditions.required_for("fp32")
    assert model.training


def test_what_warms_up_is_never_measured_and_a_forward_goes_ahead_of_each_block():
    model, calls = TinyNet(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    with prepared(model, loader(), 60) as ready:
        before = len(calls)
        found = measured(ready, 250)
        assert len(calls) - before == 250 + 3
    assert found.host.n == 250
    assert 60 <= len(found.warmup.samples_ms) <= WARMUP_MAX_ITERS
    assert before == len(found.warmup.samples_ms) + 3  # these check its output


class Drops(TinyNet):
    def forward(self, x):  # in eval mode too, unless told `training=self.training`
        return torch.nn.functional.dropout(super().forward(x), 0.5)


def test_a_model_that_cannot_be_measured_keeps_its_mode():
    """What else is refused: tests/robustness/test_bad_input.py."""
    model = Drops().train()
    with pytest.raises(ValueError, match="dropout"):
        benchmark_latency(model, loader(), 10, 100)
    assert model.training


class Stalls:
    """A GPU clock that takes one block and then finds the host too slow."""

    batch, blocks = 8, 0

    def measure(self, call, inputs, iterations):
        self.blocks += 1
        if self.blocks > 1:
            raise NotQueueableError(HOST_TOO_SLOW, "3 batches late", np.full(7, 9.0))
        return GpuSamples(np.full(iterations, 1.0), np.full(2, 5.0), 1)


def test_a_run_that_could_not_be_queued_half_way_goes_on_with_the_host_alone():
    with prepared(TinyNet(), loader(), 5) as ready:
        ready.gpu_clock, ready.no_gpu_clock = Stalls(), ("", "")
        run = measured(ready, 300)
    assert (run.host.n, run.gpu) == (300, None)
    assert (run.no_gpu_clock, run.no_gpu_clock_why) == (HOST_TOO_SLOW, "3 batches late")
    assert len(run.rejected_gpu_ms) == 100 + 2 + 7  # nothing that was read is lost
    assert run.retried_batches == 1


@pytest.mark.parametrize(
    ("asked", "device", "code", "why"),
    [
        ("auto", "cpu", bench.NO_GPU, "no CUDA GPU"),
        ("host", "cuda", bench.NOT_ASKED, "host"),
        ("auto", "cuda", bench.NO_KERNELS, "NameError: "),
    ],
)
def test_why_there_is_no_gpu_clock(monkeypatch, asked, device, code, why):
    monkeypatch.delattr(bench, "GpuClock")  # whatever making one raises
    ready = bench.Bench(TinyNet(), [], torch.device(device), "fp32", None, asked)
    clock, (found, words) = ready._start_gpu_clock()
    assert (clock, found) == (None, code)
    assert why in words
