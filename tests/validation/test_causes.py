import numpy as np
from fakes import make_result

from helpers.clocks.profiling import ForwardProfile
from helpers.stats import summarise
from helpers.validation.causes import explain_bound, find_causes, interval

PROFILE = ForwardProfile(10, 68.0, 1.19, 0, 0, ("sgemm",))


def series(level, seed=0, n=500, sd=0.01):
    return level * (1 + sd * np.random.default_rng(seed).standard_normal(n))


def causes(results, clock="host"):
    return " | ".join(find_causes(clock, results, 0.10))


def test_launch_bound_host_noise_is_named_with_both_clocks():
    found = causes([make_result(series(h), series(1.3)) for h in (2.0, 2.8, 2.2)])
    assert "lancement des noyaux" in found
    assert "p50 hôte 2,199 ms, p50 GPU 1,299 ms" in found


def test_a_level_shift_is_placed_in_its_run():
    shifted = np.concatenate([series(2.0, 1, 250), series(2.6, 2, 250)])
    found = causes([make_result(series(2.0)), make_result(shifted), make_result(series(2.0, 3))])
    assert "run 2 : changement de niveau" in found
    assert "run 1 : changement" not in found


def test_a_p95_between_two_modes_is_named():
    rng = np.random.default_rng(0)
    mixed = np.where(rng.random(500) < 0.05, 3.0, 2.0) + 0.01 * rng.standard_normal(500)
    assert "frontière de deux modes" in causes([make_result(mixed), make_result(series(2.0))])


def test_chance_is_quantified_when_the_distribution_alone_explains_it():
    rng = np.random.default_rng(1)
    mixed = [np.where(rng.random(100) < 0.05, 3.0, 2.0) for _ in range(3)]
    assert "par hasard" in causes([make_result(m) for m in mixed])


def test_gate_failures_and_unsteady_warm_up_are_named():
    results = [
        make_result(series(2.0), series(1.3), retried_batches=2),
        make_result(series(2.0), series(1.6), steady=False, warmup_used=200),
    ]
    found = causes(results, "gpu")
    assert "2 lot(s) repris" in found
    assert "200 itérations de chauffe" in found


def test_what_is_said_of_several_runs_is_said_once():
    results = [make_result(series(2.0 + i, i), steady=False, warmup_used=200) for i in range(3)]
    found = causes(results)
    assert "runs 1, 2 et 3 : régime non stabilisé" in found
    assert found.count("régime non stabilisé") == 1


def test_never_unstable_alone():
    results = [make_result(series(level, seed)) for seed, level in enumerate((1.0, 1.3, 1.6))]
    assert causes(results) != ""


def test_an_interval_that_cannot_be_estimated_is_none():
    walk = 2 + np.cumsum(np.random.default_rng(0).standard_normal(500)) * 0.01
    assert interval(summarise(walk)) is None
    low, high = interval(summarise(series(2.0)))
    assert low < high


def test_what_bounds_a_forward():
    launch = [make_result(series(2.0), series(1.3))]
    device = [make_result(series(1.35), series(1.3))]
    assert explain_bound(launch, PROFILE).startswith("Borné par les lancements")
    assert "68 noyaux" in explain_bound(launch, PROFILE)
    assert explain_bound(device, PROFILE).startswith("Borné par le GPU")
    assert "Pas d'horloge GPU" in explain_bound([make_result(series(2.0))], None)
