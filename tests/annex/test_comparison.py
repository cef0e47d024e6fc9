"""What one process measures in turn, and the ratios over processes with their intervals."""

import gc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from comparison_fakes import LEVELS, make_measured, without_gpu_clock
from fakes import TinyNet, make_run
from scipy.stats import binomtest

from helpers.annex.comparison import (
    CONTROL,
    FASTER,
    REFERENCE,
    SAME,
    SLOWER,
    TOO_FEW,
    compare,
    over_processes,
    process,
    process_ratio,
)
from helpers.bench_latency import NO_GPU
from helpers.clocks.conditions import tf32_in_force
from helpers.validation.processes import pack_model

CPU = torch.device("cpu")
BATCHES = [torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]
ASKED = {"runs": 3, "measure_iters": 20, "compare_processes": 3, "warmup_iters": 2, "seed": 0}


def measure(names=(REFERENCE,), number=1, device=CPU, **changes):
    parameters = SimpleNamespace(**{"clock": "auto", **ASKED, **changes})
    packed = pack_model(TinyNet().eval())
    return process.measure_process(packed, BATCHES, names, device, parameters, number)


@pytest.fixture
def calls(monkeypatch):
    """Every call of every variant, as (name, what is in force); `calls.broken` may change one."""
    seen, net = type("Calls", (list,), {"broken": {}})(), TinyNet().eval()

    def build(variant, model, example):
        def call(x):
            switches = *tf32_in_force(), torch.is_inference_mode_enabled(), gc.isenabled()
            seen.append((variant.name, switches))
            return seen.broken.get(variant.name, lambda x, y: y)(x, net(x))

        return call

    monkeypatch.setattr(process, "build", build)
    return seen


def orders(calls, block, rounds, entries):
    """The entries' order in each round, read off the calls of one process."""
    in_turn = [name for name, _ in calls][-rounds * entries * (block + 1) - entries : -entries]
    blocks = [in_turn[i : i + block + 1] for i in range(0, len(in_turn), block + 1)]
    assert all(len(set(names)) == 1 for names in blocks)
    return [[b[0] for b in blocks[i : i + entries]] for i in range(0, len(blocks), entries)]


# --- one process


def test_every_entry_has_all_its_samples_and_every_look():
    given = measure((REFERENCE, "channels_last"), measure_iters=60)
    assert list(given.runs) == [REFERENCE, CONTROL, "channels_last"]
    assert given.failed == {}
    for run in given.runs.values():
        assert (run.host.n, run.block, len(run.looks)) == (60, 3, 21)


@pytest.mark.parametrize(("asked", "samples"), [((3, 500, 6), 250), ((2, 20, 12), 20)])
def test_all_processes_together_take_as_many_samples_as_the_sessions_runs(asked, samples):
    names = ("runs", "measure_iters", "compare_processes")
    parameters = SimpleNamespace(**dict(zip(names, asked, strict=True)))
    assert process.samples_per_process(parameters) == samples


def test_entries_take_turns_in_an_order_that_the_seed_and_the_process_choose(calls):
    found = []
    for number, seed in ((1, 0), (1, 0), (2, 0), (1, 1)):
        measure((REFERENCE, "fused", "bf16"), number, measure_iters=50, seed=seed)
        found.append(orders(calls, block=2, rounds=25, entries=4))
    assert all(sorted(order) == ["bf16", REFERENCE, REFERENCE, "fused"] for order in found[0])
    assert {order.index("fused") for order in found[0]} == {0, 1, 2, 3}
    assert found[0] == found[1]
    assert found[0] not in found[2:]


def test_each_block_is_taken_under_its_own_conditions_and_all_is_restored(calls):
    before = tf32_in_force(), gc.isenabled(), torch.is_inference_mode_enabled()
    given = measure((REFERENCE, "tf32"))
    assert {seen for name, seen in calls if name == REFERENCE} == {(False, False, True, False)}
    assert {seen for name, seen in calls if name == "tf32"} == {(True, True, True, False)}
    assert given.runs["tf32"].precision == "tf32"
    assert (tf32_in_force(), gc.isenabled(), torch.is_inference_mode_enabled()) == before


def after(calls, then, first=lambda x, y: y):
    """Answers as `first` does in so many calls, and as `then` in all that follow."""
    left = iter(range(calls))
    return lambda x, y: (then if next(left, None) is None else first)(x, y)


def fail(x, y):
    raise SystemExit("no kernel")


def recompiling():
    function = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    first, then = (lambda x, y, n=n: (function(torch.zeros(n)), y)[1] for n in (2, 3))
    return after(30, then, first)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (lambda: fail, "no kernel"),  # in its warm-up
        (lambda: after(30, fail), "no kernel"),  # while it is timed
        (lambda: after(30, lambda x, y: torch.cat([y, y])), "output had shape"),
        (recompiling, "while it was timed"),
    ],
)
def test_an_entry_that_fails_is_named_and_the_others_go_on(calls, broken, why):
    calls.broken["fused"] = broken()
    given = measure((REFERENCE, "fused"), measure_iters=50)
    assert why in given.failed["fused"]
    assert list(given.runs) == [REFERENCE, CONTROL]
    assert given.runs[CONTROL].host.n == 50


def test_a_variant_that_cannot_be_built_is_named():
    assert list(measure((REFERENCE, "fused+cudagraph")).failed) == ["fused+cudagraph"]


def test_nothing_is_measured_without_the_reference(calls):
    calls.broken[REFERENCE] = fail
    with pytest.raises(BaseException, match="no kernel"):
        measure((REFERENCE, "fused"))
    assert gc.isenabled()


@pytest.mark.gpu
def test_both_clocks_of_every_entry_on_a_gpu():
    given = measure((REFERENCE, "tf32", "cudagraph"), device=torch.device("cuda:0"))
    assert given.failed == {}
    assert all(run.gpu.n == run.host.n == 20 for run in given.runs.values())


# --- the ratio of one process


def test_the_ratio_is_that_of_blocks_of_the_same_round():
    drift = np.repeat(np.linspace(1, 2, 25), 4)
    reference = make_run(drift, block=4)
    assert process_ratio(make_run(1.1 * drift, block=4), reference, "host") == pytest.approx(1.1)
    disturbed = 1.1 * drift
    disturbed[:40] *= 30  # ten of the 25 rounds
    found = process_ratio(make_run(disturbed, block=4), reference, "host")
    assert found == pytest.approx(1.1)


# --- over processes


def test_ratios_and_verdicts_on_both_clocks():
    comparison = compare(make_measured())
    gpu, host = comparison.ratios["gpu"], comparison.ratios["host"]
    assert list(gpu) == [name for name in LEVELS if name != REFERENCE]
    assert (gpu[CONTROL].verdict, host[CONTROL].verdict) == (SAME, SAME)
    assert (gpu["fp16"].verdict, host["fp16"].verdict) == (FASTER, SLOWER)
    assert gpu["compile"].mean == pytest.approx(0.15 / 1.30, rel=0.01)
    assert len(gpu["compile"].values) == comparison.processes == 6


def test_a_clock_compares_what_it_has_read_in_three_processes():
    measured = without_gpu_clock(make_measured(), "fp16")
    assert "fp16" not in compare(measured).ratios["gpu"]
    assert "fp16" in compare(measured).ratios["host"]
    for number, given in enumerate(measured.processes):
        if number < 3:
            del given.runs["fused"]
        if number < 4:
            del given.runs["compile"]
    host = compare(measured).ratios["host"]
    assert len(host["fused"].values) == 3
    assert "compile" not in host


def test_why_a_clock_compares_nothing():
    assert compare(make_measured(gpu=False)).refused == {"gpu": (NO_GPU, "no CUDA GPU")}
    few = compare(make_measured(processes=2))
    assert few.ratios == {}
    assert {code for code, _ in few.refused.values()} == {TOO_FEW}
    assert compare(make_measured(processes=0)).ratios == {}
    assert compare(make_measured(gpu=False)).ratios["host"]


def test_a_variant_that_varies_more_than_twice_as_much_as_the_others_is_found():
    comparison = compare(make_measured(sds={"compile": 0.03}, processes=12))
    assert comparison.variable("gpu") == ["compile"]
    assert compare(make_measured(processes=12)).variable("gpu") == []
    alone = {name: LEVELS[name] for name in (REFERENCE, CONTROL, "fp16")}
    assert compare(make_measured(alone)).variable("gpu") == []


# --- size and power, simulated with what H100s showed


def simulated(random, truths, processes, sds):
    """Ratios by entry: levels of the processes are lognormal, with the reference's in all."""
    reference = 0.006 * random.standard_normal(processes)
    found = {CONTROL: np.exp(0.0003 * random.standard_normal(processes))}
    for (name, truth), sd in zip(truths.items(), sds, strict=True):
        levels = sd * random.standard_normal(processes) - reference
        within = 0.0004 * random.standard_normal(processes)
        found[name] = truth * np.exp(levels + within)
    return over_processes(found)


def share(events):
    """99 % interval of how often an event happens."""
    return binomtest(sum(events), len(events)).proportion_ci(0.99)


@pytest.mark.parametrize("processes", [3, 6, 12])
def test_all_intervals_hold_together_19_times_in_20(processes):
    random, truths = np.random.default_rng(processes), {"tf32": 0.4, "graph": 0.95, "fp16": 0.1}
    held, alarms = [], []
    for _ in range(1500):
        found = simulated(random, truths, processes, sds=(0.010, 0.0002, 0.014))
        held.append(all(found[n].low <= truth <= found[n].high for n, truth in truths.items()))
        alarms.append(found[CONTROL].verdict != SAME)
    assert share(held).high >= 0.95
    assert share(held).low <= 0.98  # Bonferroni's correction costs little
    assert share(alarms).low <= 0.05


def test_equal_variants_are_rarely_told_apart_and_3_percent_nearly_always_in_6_processes():
    random = np.random.default_rng(0)
    equal, slower = [], []
    for _ in range(1000):
        found = simulated(random, {"a": 1.0, "b": 1.03}, 6, sds=(0.005, 0.005))
        equal.append(found["a"].verdict != SAME)
        slower.append(found["b"].verdict == SLOWER)
    assert share(equal).low <= 0.05
    assert share(slower).low >= 0.90


def test_more_variants_widen_the_intervals_and_the_control_is_none():
    values = {str(i): np.exp(0.01 * np.arange(6)) for i in range(8)}
    alone, controlled = ({"0": values["0"]}, {"0": values["0"], CONTROL: values["1"]})
    widths = [(r := over_processes(v)["0"]).high - r.low for v in (alone, controlled, values)]
    assert widths[0] == widths[1] < widths[2]


def test_equal_readings_are_no_difference():
    found = over_processes({"a": [1.0] * 3, "b": [2.0] * 3})
    assert (found["a"].verdict, found["b"].verdict) == (SAME, SLOWER)
    assert compare(make_measured(sds=dict.fromkeys(LEVELS, 0.0))).ratios["gpu"]
