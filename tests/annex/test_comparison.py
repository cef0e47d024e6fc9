"""Interleaved measurement: turns, switches, controls, and an entry that fails alone."""

import copy
import gc

import numpy as np
import pytest
import torch
from comparison_fakes import COPY, LEVELS, REFERENCE, make_interleaved
from fakes import TinyNet, make_result

from helpers.annex.comparison import (
    TOO_FEW_ROUNDS,
    block_medians,
    block_size,
    compare,
    control_of,
    measure_interleaved,
)
from helpers.annex.comparison.stats import FASTER, SAME, SLOWER
from helpers.bench_latency import NO_GPU, ModelError
from helpers.clocks.conditions import tf32_in_force

CPU = torch.device("cpu")
BATCHES = [torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]
CONTROL = control_of(REFERENCE)


def measure(callables=None, **settings):
    callables = callables or {REFERENCE: (TinyNet(), "fp32")}
    settings = {"runs": 2, "warmup_iters": 2, "measure_iters": 20, "device": CPU} | settings
    return measure_interleaved(callables, BATCHES, **settings)


class Recorder:
    """A callable that writes down the name of whoever is called, and what is in force."""

    def __init__(self):
        self.calls, self.seen = [], {}

    def named(self, name):
        net = TinyNet().eval()

        def call(x):
            self.calls.append(name)
            self.seen.setdefault(name, set()).add(
                (*tf32_in_force(), torch.is_inference_mode_enabled(), gc.isenabled())
            )
            return net(x)

        return call


def test_every_entry_has_all_its_samples_and_the_control_comes_second():
    model = TinyNet()
    measured = measure(
        {"fused": (lambda x: model(x), "fp32"), REFERENCE: (model, "fp32")}, measure_iters=120
    )
    assert list(measured.runs) == [REFERENCE, CONTROL, "fused"]
    assert all([r.host.n for r in runs] == [120, 120] for runs in measured.runs.values())
    assert measured.block == block_size(120) == 3
    assert len(measured.orders) == 80
    assert [len(seen) for seen in measured.observed] == [40, 40]
    assert measured.failed == {}


def test_entries_take_turns_block_by_block_in_the_order_recorded():
    recorder = Recorder()
    entries = {name: (recorder.named(name), "fp32") for name in (REFERENCE, "a", "b")}
    measured = measure(entries, runs=1, measure_iters=100)
    size = 1 + measured.block  # one forward goes ahead unmeasured
    orders = [name.removesuffix(" (A/A)") for order in measured.orders for name in order]
    in_blocks = [name for name in orders for _ in range(size)]
    end = len(entries) + 1  # the last check runs each once more
    assert recorder.calls[-len(in_blocks) - end : -end] == in_blocks


def test_the_order_is_random_and_the_seed_repeats_it():
    entries = {name: (TinyNet(), "fp32") for name in (REFERENCE, "a", "b")}
    one, two, other = (measure(entries, seed=seed).orders for seed in (1, 1, 2))
    assert one == two != other
    assert {order.index(REFERENCE) for order in one} == {0, 1, 2, 3}
    assert all(sorted(order) == sorted([CONTROL, *entries]) for order in one)


def test_each_block_is_taken_under_its_own_conditions_and_all_is_restored():
    recorder, before = Recorder(), (tf32_in_force(), gc.isenabled())
    measured = measure(
        {
            REFERENCE: (recorder.named(REFERENCE), "fp32"),
            "tf32": (recorder.named("tf32"), "tf32"),
            "default": (recorder.named("default"), "default"),
        }
    )
    assert recorder.seen[REFERENCE] == {(False, False, True, False)}
    assert recorder.seen["tf32"] == {(True, True, True, False)}
    assert recorder.seen["default"] == {(*before[0], True, False)}
    assert measured.runs["tf32"][0].precision == "tf32"
    assert measured.runs["tf32"][0].conditions.tf32_convolutions
    assert (tf32_in_force(), gc.isenabled()) == before
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("after", [0, 30])  # in its warm-up, and in the middle of a run
@pytest.mark.parametrize("error", [RuntimeError, OSError, MemoryError, SystemExit])
def test_an_entry_that_fails_is_left_out_and_the_others_go_on(after, error):
    calls, net = [], TinyNet().eval()

    def breaks(x):
        calls.append(x)
        if len(calls) > after:
            raise error("no kernel")
        return net(x)

    measured = measure({REFERENCE: (net, "fp32"), "broken": (breaks, "fp32")}, measure_iters=50)
    assert "no kernel" in measured.failed["broken"]
    assert list(measured.runs) == [REFERENCE, CONTROL]
    assert [r.host.n for r in measured.runs[CONTROL]] == [50, 50]
    assert list(compare(measured).ratios["host"]) == [CONTROL]


def test_a_model_that_changes_meanwhile_is_left_out():
    net, calls = TinyNet().eval(), []

    def grows(x):
        calls.append(x)
        return torch.cat([net(x)] * (2 if len(calls) > 60 else 1))

    measured = measure({REFERENCE: (net, "fp32"), "grows": (grows, "fp32")}, measure_iters=50)
    assert "output had shape" in measured.failed["grows"]
    assert "grows" not in measured.runs


def test_an_entry_that_is_compiled_anew_while_it_is_timed_is_left_out():
    net, calls = TinyNet().eval(), []
    function = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    function(torch.zeros(2))

    def recompiles(x):
        calls.append(x)
        function(torch.zeros(3 if len(calls) > 60 else 2))
        return net(x)

    entries = {REFERENCE: (net, "fp32"), "recompiles": (recompiles, "fp32")}
    measured = measure(entries, measure_iters=50)
    assert "compiled 1 graph(s) anew" in measured.failed["recompiles"]
    assert "recompiles" not in measured.runs


def test_nothing_can_be_compared_without_the_reference():
    def broken(x):
        raise RuntimeError("no kernel")

    with pytest.raises(ModelError, match="no kernel"):
        measure({REFERENCE: (broken, "fp32"), "a": (TinyNet(), "fp32")})
    assert gc.isenabled()


def test_a_copy_that_failed_is_no_control():
    entries = {REFERENCE: (TinyNet(), "fp32"), COPY: (lambda x: None, "fp32")}
    measured = measure(entries, copies=(COPY,))
    assert measured.copies == ()
    assert "NoneType" in measured.failed[COPY]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reference": "fp64"}, "reference 'fp64' is not among the callables: fp32"),
        ({"copies": ("twin",)}, "copy 'twin' is not among"),
        ({"runs": 0}, "runs=0"),
        ({"measure_iters": 2.5}, "measure_iters=2.5"),
        ({"warmup_iters": 0}, "warmup_iters=0"),
        ({"callables": {REFERENCE: (TinyNet(), "fp32"), CONTROL: (TinyNet(), "fp32")}}, "A/A"),
        ({"callables": {REFERENCE: (TinyNet(), "int4")}}, "precision='int4' is unknown"),
    ],
)
def test_wrong_settings_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        measure(**settings)


def test_medians_are_those_of_the_blocks_in_order():
    runs = [make_result([1, 2, 9, 5, 4, 6, 7]), make_result([3, 3, 3, 8, 8, 8, 1])]
    measured = make_interleaved(block=3)
    measured.runs["x"] = tuple(runs)
    np.testing.assert_array_equal(block_medians(measured, "x", "host"), [2, 5, 7, 3, 8, 1])


def test_ratios_on_both_clocks_with_both_controls():
    comparison = compare(make_interleaved())
    gpu, host = comparison.ratios["gpu"], comparison.ratios["host"]
    assert list(gpu) == [name for name in LEVELS if name != REFERENCE]
    assert (gpu[CONTROL].verdict, host[CONTROL].verdict) == (SAME, SAME)
    assert (gpu["fp16"].verdict, host["fp16"].verdict) == (FASTER, SLOWER)
    assert gpu["compile"].ratio == pytest.approx(0.15 / 1.30, rel=0.01)
    assert 0.02 < comparison.placement["gpu"] < 0.03
    assert comparison.within_placement("gpu", "fused")
    assert not comparison.within_placement("gpu", "fp16")
    assert not comparison.within_placement("host", "fused")


def test_an_entry_without_a_gpu_clock_is_compared_on_the_hosts():
    measured = make_interleaved()
    measured.runs["fp16"] = tuple(make_result(r.host.samples_ms) for r in measured.runs["fp16"])
    comparison = compare(measured)
    assert "fp16" not in comparison.ratios["gpu"]
    assert "fp16" in comparison.ratios["host"]


def test_why_a_clock_compares_nothing():
    assert list(compare(make_interleaved(gpu=False)).ratios) == ["host"]
    few = compare(make_interleaved(runs=1, samples=10, block=1, orders=(tuple(LEVELS),) * 10))
    assert few.ratios == {}
    assert few.refused == {"gpu": TOO_FEW_ROUNDS, "host": TOO_FEW_ROUNDS}


def test_a_real_comparison_finds_twice_the_work_and_not_its_own_copy():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 512)).eval()

    def thrice(x):
        return model(x + 0 * (model(x).sum() + model(x).sum()))

    entries = {
        REFERENCE: (model, "fp32"),
        COPY: (copy.deepcopy(model), "fp32"),
        "thrice": (thrice, "fp32"),
    }
    measured = measure(entries, copies=(COPY,), measure_iters=200)
    comparison = compare(measured)
    assert comparison.ratios["host"]["thrice"].verdict == SLOWER
    assert comparison.refused == {"gpu": NO_GPU}
    assert comparison.rounds == 100


@pytest.mark.gpu
def test_both_clocks_of_every_entry_on_a_gpu():
    device = torch.device("cuda:0")
    model = TinyNet().to(device).eval()
    entries = {REFERENCE: (model, "fp32"), "tf32": (lambda x: model(x), "tf32")}
    measured = measure(entries, device=device, measure_iters=60)
    assert all(r.gpu.n == r.host.n == 60 for runs in measured.runs.values() for r in runs)
    assert set(compare(measured).ratios) == {"gpu", "host"}
