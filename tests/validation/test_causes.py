import numpy as np
from fakes import make_run, series

from helpers.clocks.warmup import Warmup
from helpers.validation.causes import find_causes

UNSTEADY = Warmup(np.full(200, 2.0), steady=False)


def causes(runs, clock="host"):
    return {(cause.code, *cause.runs): cause.values for cause in find_causes(clock, runs, 0.10)}


def test_launch_bound_host_noise_is_named_with_both_clocks():
    found = causes([make_run(series(h), series(1.3)) for h in (2.0, 2.8, 2.2)])
    assert np.allclose(list(found["launch_bound",].values()), [2.2, 1.3], rtol=0.01)


def test_a_level_shift_is_placed_in_its_run():
    shifted = np.concatenate([series(2.0, 1, 250), series(2.6, 2, 250)])
    found = causes([make_run(series(2.0)), make_run(shifted), make_run(series(2.0, 3))])
    shift = found["level_shift", 2]
    assert abs(shift["iteration"] - 250) < 5
    assert np.allclose([shift["before_ms"], shift["after_ms"]], [2.0, 2.6], rtol=0.01)
    assert ("level_shift", 1) not in found
    assert list(causes([make_run(series(2.0))] * 2)) == [("unknown",)]


def test_a_p95_between_two_modes_is_named():
    rng = np.random.default_rng(0)
    mixed = np.where(rng.random(500) < 0.05, 3.0, 2.0) + 0.01 * rng.standard_normal(500)
    assert ("between_modes", 1) in causes([make_run(mixed), make_run(series(2.0))])


def test_chance_is_quantified_when_the_distribution_alone_explains_it():
    rng = np.random.default_rng(1)
    mixed = [np.where(rng.random(100) < 0.05, 3.0, 2.0) for _ in range(3)]
    assert 0.05 < causes([make_run(m) for m in mixed])["chance",]["chance"] < 1


def test_gate_failures_and_unsteady_warm_up_are_named():
    runs = [
        make_run(series(2.0), series(1.3), retried_batches=2),
        make_run(series(2.0), series(1.6), warmup=UNSTEADY),
    ]
    found = causes(runs, "gpu")
    assert found["retried_batches", 1] == {"batches": 2}
    assert found["unsteady_warmup", 2] == {"iterations": 200}
