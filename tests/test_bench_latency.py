import dataclasses
import gc
import os

import numpy as np
import pytest
import torch
from fakes import TinyNet
from torch.utils.data import DataLoader, TensorDataset

from helpers import bench_latency as bench
from helpers.bench_latency import benchmark_latency, move_inputs, prepared
from helpers.clocks import WAITS_INSIDE, warmup


def loader(batch_size=1, images=16):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, 3, 8, 8, generator=generator)
    return DataLoader(TensorDataset(x, torch.zeros(images)), batch_size=batch_size)


def test_one_sample_per_forward_in_milliseconds():
    run = benchmark_latency(TinyNet(), loader(), warmup_iters=5, measure_iters=230)
    host = run.host
    assert host.samples_ms.shape == (230,)
    assert host.min <= host.p50 <= host.p95 <= host.max
    assert host.mean == pytest.approx(host.samples_ms.mean())
    assert host.p95 == pytest.approx(np.percentile(host.samples_ms, 95))
    assert 0 < host.mean < 1000
    assert run.gpu is None
    assert run.no_gpu_clock == bench.NO_GPU
    assert run.input_shape == (1, 3, 8, 8)
    assert run.precision == "fp32"


@pytest.mark.parametrize("batch_size", [1, 4])
def test_any_batch_size_is_measured_and_recorded(batch_size):
    run = benchmark_latency(TinyNet(), loader(batch_size), 2, 20)
    assert run.batch_size == batch_size
    assert run.input_shape == (batch_size, 3, 8, 8)


def test_the_run_is_frozen_and_its_samples_too():
    run = benchmark_latency(TinyNet(), loader(), 2, 20)
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.device = "elsewhere"
    with pytest.raises(ValueError, match="read-only"):
        run.host.samples_ms[0] = 0


def test_conditions_hold_inside_and_the_model_is_as_before():
    model, seen = TinyNet().train(), []
    model.register_forward_hook(
        lambda m, *_: seen.append((m.training, torch.is_grad_enabled(), gc.isenabled()))
    )
    run = benchmark_latency(model, loader(), 2, 20)
    assert set(seen) == {(False, False, False)}
    assert run.conditions.required_for("fp32")
    assert model.training


def test_inputs_are_moved_once_and_rotated():
    class Counting(TinyNet):
        def __init__(self):
            super().__init__()
            self.seen = []

        def forward(self, x):
            self.seen.append(x.data_ptr())
            return super().forward(x)

    model = Counting()
    benchmark_latency(model, loader(), 5, 40)
    assert len(set(model.seen)) == bench.DISTINCT_INPUTS


def test_warm_up_is_a_minimum_and_never_measured():
    calls = []

    def model(x):
        calls.append(1)
        return x.mean((2, 3))

    run = benchmark_latency(model, loader(), warmup_iters=60, measure_iters=30)
    assert 60 <= len(run.warmup.samples_ms) <= warmup.WARMUP_MAX_ITERS
    # five forwards check the output, one goes ahead of the block
    assert len(calls) == 5 + len(run.warmup.samples_ms) + 1 + 30


def test_an_unmeasured_forward_goes_ahead_of_each_block():
    model, counts = TinyNet(), []
    model.register_forward_hook(lambda *_: counts.append(1))
    with prepared(model, loader(), 5) as ready:
        measuring = ready.new_run(250)
        before = len(counts)
        while not measuring.complete:
            measuring.measure_block()
        assert len(counts) - before == 250 + 3
    assert measuring.result().host.n == 250


def test_looks_are_taken_before_between_and_after_the_blocks():
    run = benchmark_latency(TinyNet(), loader(), 2, 250)
    assert len(run.looks) == 4  # 100 + 100 + 50 samples: three blocks, four looks
    assert run.process.pid == os.getpid()


def test_a_run_prints_its_figures_and_not_its_samples():
    printed = str(benchmark_latency(TinyNet(), loader(), 2, 250))
    assert "p95" in printed
    assert len(printed) < 400


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "nothing"),
        ([torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 8, 8)], "drop_last"),
        ([torch.zeros(0, 3, 8, 8)], "shape"),
    ],
)
def test_bad_inputs_are_named(batches, message):
    with pytest.raises(ValueError, match=message):
        move_inputs(batches, torch.device("cpu"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: (x, x), "returned tuple"),
        (lambda x: None, "returned NoneType"),
        (lambda x: x * float("nan"), "NaN"),
        (lambda x: x.to("meta"), "meta"),
    ],
)
def test_models_that_cannot_be_timed_are_named(model, message):
    with pytest.raises(ValueError, match=message):
        benchmark_latency(model, loader(), 2, 20)


@pytest.mark.parametrize(("warmup", "measure"), [(0, 20), (2, 0)])
def test_too_few_iterations_are_refused(warmup, measure):
    with pytest.raises(ValueError, match="at least 1"):
        benchmark_latency(TinyNet(), loader(), warmup, measure)


def test_a_model_that_raises_midway_leaves_its_mode_and_the_error():
    class Tired(TinyNet):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 30:
                raise RuntimeError("tired after 30 forwards")
            return super().forward(x)

    model = Tired().train()
    with pytest.raises(RuntimeError, match="tired after 30"):
        benchmark_latency(model, loader(), 10, 100)
    assert model.training


@pytest.mark.gpu
def test_both_clocks_on_a_gpu():
    run = benchmark_latency(TinyNet().cuda(), loader(), 10, 150)
    assert run.gpu.samples_ms.shape == (150,)
    assert run.gpu.p50 <= run.host.p50
    assert run.device.startswith("cuda")


@pytest.mark.gpu
def test_a_model_that_waits_inside_has_no_gpu_clock_and_says_why():
    class Waiting(TinyNet):
        def forward(self, x):
            y = super().forward(x)
            y.sum().item()
            return y

    run = benchmark_latency(Waiting().cuda(), loader(), 10, 50)
    assert run.gpu is None
    assert run.no_gpu_clock == WAITS_INSIDE
