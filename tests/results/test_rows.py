import dataclasses

import numpy as np
import pytest
from fakes import AS_REQUIRED, make_result

from helpers.parameters import validate
from helpers.results import COLUMNS
from helpers.results.rows import run_row, run_samples
from helpers.results.table import check_row

CPU_MACHINE = {"gpu": None, "software": {"torch": "2.14.1"}, "cuda": {"torch_cuda": None}}
GPU_MACHINE = {
    "gpu": {"name": "NVIDIA H100"},
    "software": {"torch": "2.14.1"},
    "cuda": {"torch_cuda": "13.0"},
}


def row(result, machine, **parameters):
    return run_row(
        result,
        run=1,
        parameters=validate(**parameters),
        environment=machine,
        dataset="cifar10",
        accuracy=0.1,
        eval_images=10_000,
        session="s",
    )


def samples(level, seed=0):
    return level * (1 + 0.01 * np.random.default_rng(seed).standard_normal(500))


def test_a_row_has_the_columns_and_is_valid():
    made = row(make_result(samples(2.0), samples(1.3)), GPU_MACHINE)
    assert tuple(made) == COLUMNS
    check_row(made)


def test_the_deciding_clock_fills_lat_and_both_stay_visible():
    result = make_result(samples(2.0), samples(1.3))
    by_gpu, by_host = row(result, GPU_MACHINE), row(result, GPU_MACHINE, clock="host")
    assert (by_gpu["clock"], by_gpu["lat_p95"]) == ("gpu", result.gpu.p95)
    assert (by_host["clock"], by_host["lat_p95"]) == ("host", result.host.p95)
    assert by_gpu["host_p95"] == by_host["host_p95"] == result.host.p95
    assert by_gpu["gpu_p95"] == result.gpu.p95
    assert by_gpu["lat_p95_low"] < by_gpu["lat_p95"] < by_gpu["lat_p95_high"]


def test_what_does_not_exist_is_empty_and_never_zero():
    walk = 5 + np.cumsum(np.random.default_rng(0).standard_normal(500)) * 0.01
    made = row(make_result(walk), CPU_MACHINE)
    for name in ("gpu_mean", "gpu_p95", "lat_p95_low", "lat_p95_high"):
        assert made[name] is None
    assert made["gpu_name"] == ""


def test_flags_say_what_speaks_against_the_figures():
    assert row(make_result(samples(2.0)), CPU_MACHINE)["flags"] == ""
    bad = make_result(samples(2.0), device="cuda:0", steady=False, retried_batches=1)
    flags = row(bad, GPU_MACHINE)["flags"].split(";")
    assert set(flags) == {"unsteady_warmup", "gpu_clock_unavailable", "retried_batches"}
    assert AS_REQUIRED.required_for("fp32")


@pytest.mark.parametrize(("precision", "flags"), [("tf32", ""), ("fp32", "conditions_not_met")])
def test_tf32_is_what_a_tf32_variant_requires(precision, flags):
    allowed = dataclasses.replace(AS_REQUIRED, tf32_convolutions=True, tf32_matmul=True)
    result = make_result(samples(2.0), precision=precision, conditions=allowed)
    assert row(result, CPU_MACHINE)["flags"] == flags


def test_a_tf32_variant_that_ran_without_tf32_is_flagged():
    assert row(make_result(samples(2.0), precision="tf32"), CPU_MACHINE)["flags"] != ""


def test_every_sample_is_kept():
    result = make_result(samples(2.0), samples(1.3), rejected_gpu_ms=np.array([9.0]))
    kept = run_samples(result)
    assert set(kept) == {"host_ms", "gpu_ms", "warmup_ms", "rejected_gpu_ms"}
    assert kept["rejected_gpu_ms"].tolist() == [9.0]
    assert "gpu_ms" not in run_samples(make_result(samples(2.0)))
