"""What one process measures in turn, and the ratios over processes with their intervals."""

import gc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from comparison_fakes import make_measured, without_gpu_clock
from fakes import TinyNet, make_run
from scipy.stats import binomtest

from helpers.annex import comparison
from helpers.annex.comparison import CONTROL, REFERENCE, compare, process
from helpers.clocks.conditions import tf32_in_force
from helpers.environment.readings import Looker
from helpers.validation.processes import pack_model

BATCHES = [torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]
ASKED = {"runs": 3, "measure_iters": 20, "compare_processes": 3, "warmup_iters": 2, "seed": 0}


def measure(*others, number=1, device="cpu", **changes):
    """What one process gives of the reference and others, in this process."""
    parameters = SimpleNamespace(**{"clock": "auto", **ASKED, **changes})
    given = pack_model(TinyNet().eval()), BATCHES, (REFERENCE, *others), torch.device(device)
    return process.measure_process(*given, parameters, number)


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


# --- one process


def test_every_entry_has_all_its_samples_and_every_look():
    given = measure("channels_last", "fused+cudagraph", measure_iters=60)
    assert list(given.runs) == [REFERENCE, CONTROL, "channels_last"]
    assert list(given.failed) == ["fused+cudagraph"]  # it cannot be built
    for run in given.runs.values():
        assert (run.host.n, run.block, len(run.looks)) == (60, 3, 21)


def test_entries_take_turns_in_a_random_order_of_their_process(calls):
    found = []
    for number in (1, 1, 2):
        measure("fused", "bf16", number=number, measure_iters=50)
        in_turn = [name for name, _ in calls][-(25 * 4 * 3 + 4) : -4]  # the last check calls all
        blocks = np.reshape(in_turn, (25, 4, 3))  # of two, and one goes ahead unmeasured
        assert (blocks == blocks[:, :, :1]).all()
        found.append(blocks[:, :, 0].tolist())
    assert all(sorted(order) == ["bf16", REFERENCE, REFERENCE, "fused"] for order in found[0])
    assert {order.index("fused") for order in found[0]} == {0, 1, 2, 3}
    assert found[0] == found[1] != found[2]


def test_each_block_is_taken_under_its_own_conditions_and_all_is_restored(calls):
    before = tf32_in_force(), gc.isenabled(), torch.is_inference_mode_enabled()
    given = measure("tf32")
    assert set(calls) == {
        (REFERENCE, (False, False, True, False)),
        ("tf32", (True,) * 3 + (False,)),
    }
    assert given.runs["tf32"].precision == "tf32"
    assert (tf32_in_force(), gc.isenabled(), torch.is_inference_mode_enabled()) == before


def fail(x, y):
    raise SystemExit("no kernel")


RECOMPILING = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
BROKEN = [  # what the variant does in its warm-up, and while it is timed
    (fail, fail, "no kernel"),
    (lambda x, y: y, fail, "no kernel"),
    (lambda x, y: y, lambda x, y: torch.cat([y, y]), "output had shape"),
    (
        *(lambda x, y, n=n: (RECOMPILING(torch.zeros(n)), y)[1] for n in (2, 3)),
        "while it was timed",
    ),
]


@pytest.mark.parametrize(("warming", "timed", "why"), BROKEN)
def test_an_entry_that_fails_is_named_and_the_others_go_on(calls, monkeypatch, warming, timed, why):
    def looker(device):
        calls.broken["fused"] = timed
        return Looker(device)

    calls.broken["fused"] = warming
    monkeypatch.setattr(process, "Looker", looker)  # made when the rounds begin
    given = measure("fused", measure_iters=50)
    assert why in given.failed["fused"]
    assert list(given.runs) == [REFERENCE, CONTROL]
    assert given.runs[CONTROL].host.n == 50


def test_nothing_is_measured_without_the_reference(calls):
    calls.broken[REFERENCE] = fail
    with pytest.raises(BaseException, match="no kernel"):
        measure("fused")
    assert gc.isenabled()


@pytest.mark.gpu
def test_both_clocks_of_every_entry_on_a_gpu():
    given = measure("tf32", "cudagraph", device="cuda:0")
    assert given.failed == {}
    assert all(run.gpu.n == run.host.n == 20 for run in given.runs.values())


def test_the_ratio_is_that_of_blocks_of_the_same_round_and_each_mode_counts_by_its_share():
    drift = np.repeat(np.linspace(1, 2, 25), 4)
    faster = 0.5 * drift
    fast_cpu = np.arange(100) < 40  # ten of the 25 rounds, in which Python costs less
    runs = make_run(faster, block=4), make_run(np.where(fast_cpu, drift / 1.4, drift), block=4)
    assert comparison.process_ratio(*runs, "host") == pytest.approx(0.5 * 1.4 ** (10 / 25))


# --- over processes


def test_a_clock_compares_what_it_has_read_in_three_processes():
    measured = without_gpu_clock(make_measured(), "fp16")
    for name, failures in (("fused", 3), ("compile", 4)):
        for given in measured.processes[:failures]:
            del given.runs[name]
    gpu, host = (compare(measured).ratios[clock] for clock in ("gpu", "host"))
    assert list(gpu) == [CONTROL, "fused"]
    assert set(host) == {CONTROL, "fp16", "fused"}
    assert len(host["fused"].values) == 3


@pytest.mark.parametrize("processes", [3, 6, 12])
def test_intervals_hold_together_equals_are_not_told_apart_and_3_percent_is_found(processes):
    """Size and power, simulated with what H100s showed: lognormal levels of the processes."""
    truths = {CONTROL: 1.0, "tf32": 0.4, "graph": 0.95, "equal": 1.0, "slower": 1.03}
    random, found = np.random.default_rng(processes), []
    sds = np.array([[0], [0.010], [0.0002], [0.005], [0.005]])
    for _ in range(1500):
        levels = sds * random.standard_normal((5, processes))
        levels[1:] -= 0.006 * random.standard_normal(processes)  # the reference's, in all
        noise = 0.0004 * random.standard_normal((5, processes))
        values = np.array([*truths.values()])[:, None] * np.exp(levels + noise)
        found.append(comparison.over_processes(dict(zip(truths, values, strict=True))))

    def share(events):
        return binomtest(sum(events), len(found)).proportion_ci(0.99)

    variants = truths.items() - {(CONTROL, 1.0)}
    held = share(all(f[n].low <= truth <= f[n].high for n, truth in variants) for f in found)
    assert held.high >= 0.95
    assert held.low <= 0.98  # Bonferroni's correction costs little
    for name in (CONTROL, "equal"):
        assert share(f[name].verdict != "same" for f in found).low <= 0.05
    assert processes < 6 or share(f["slower"].verdict == "slower" for f in found).low >= 0.90
