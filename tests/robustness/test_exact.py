"""Figures and edges worked out by another way; each was found untested by a mutation run."""

import inspect
import math

import numpy as np
import pytest
import torch
from fakes import TinyNet, make_result
from scipy import special
from scipy import stats as scipy_stats
from simulated_series import ar1

from helpers import stats
from helpers.parameters import Parameters
from helpers.results import ResultsError, load_samples
from helpers.stats import chance_of_failing, correlation_time, quantile_interval, spread
from helpers.validation import deciding_clock, judge, validation_runs

# --- stats


def test_summaries_of_the_smallest_samples():
    assert stats.summarise([1.0, 2.0]).std == pytest.approx(math.sqrt(0.5))
    assert stats.summarise([0.0, 1.0]).min == 0  # a clock may tick more coarsely than that


def coin(n=2000, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat([1.0, 2.0], n // 2))


def test_the_chance_of_failing_of_a_coin_is_a_half():
    """Two runs of one sample each differ half of the time, and then fail."""
    assert chance_of_failing(coin(), run_length=1, runs=2) == pytest.approx(0.5, abs=0.05)
    assert chance_of_failing(coin(), run_length=1) == pytest.approx(0.75, abs=0.05)  # of 3 runs
    assert chance_of_failing(coin(), run_length=1, runs=2, draws=1) in (0.0, 1.0)


def test_a_spread_that_is_exactly_the_limit_does_not_fail_by_chance():
    limit = spread([1.0, 2.0])
    assert chance_of_failing(coin(), run_length=1, runs=2, limit=limit) == 0
    below = np.nextafter(limit, 0)
    assert chance_of_failing(coin(), run_length=1, runs=2, limit=below) > 0.4


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("n", [500, 4000])
def test_blocks_are_as_long_as_carlstein_says(rho, n):
    """His rule in its own form, with the ρ of an AR(1) of the same τ."""
    samples = ar1(rho)(np.random.default_rng(1), n)
    tau = correlation_time(samples).tau
    same = (tau - 1) / (tau + 1)
    expected = (math.sqrt(6) * same / (1 - same**2)) ** (2 / 3) * n ** (1 / 3)
    assert stats._block_length(samples) == math.ceil(expected)


def test_uncorrelated_samples_are_drawn_one_by_one():
    assert stats._block_length(np.tile([1.0, 2.0], 100)) == 1


def test_exactly_as_many_samples_as_needed_are_enough():
    assert quantile_interval(np.ones(72)) == (1.0, 1.0)
    with pytest.raises(ValueError, match=r"worth 71\.0 .* needs 72"):
        quantile_interval(np.ones(71))
    assert quantile_interval(np.ones(6), q=0.5) == (1.0, 1.0)
    assert quantile_interval(np.ones(28), confidence=0.5) == (1.0, 1.0)
    with pytest.raises(ValueError, match=r"0\.5-quantile needs 8"):
        quantile_interval(np.ones(7), q=0.5, confidence=0.99)


def test_the_interval_of_the_median_of_ranks_is_hutsons():
    """Samples 1 … n in random order: a fractional rank is then its own quantile."""
    n = 400
    samples = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    time = correlation_time((samples > n / 2).astype(float))
    assert time.tau == correlation_time(samples).tau == 1
    for confidence in (0.8, 0.95):
        low, high = quantile_interval(samples, q=0.5, confidence=confidence)
        assert low + high == pytest.approx(n + 1)  # symmetric about the median
        z = scipy_stats.t.isf((1 - confidence) / 2, time.freedom)
        tail = scipy_stats.norm.sf(z)
        # The low end lies below the median with probability 1 - tail.
        assert special.betainc(low, n - low + 1, 0.5) == pytest.approx(1 - tail, abs=1e-9)


@pytest.mark.parametrize(
    ("probability", "rank"), [(1 - 1e-9, 1.0), (0.5**6, 6.0), (0.5**6 / 2, 6.0), (0.95, None)]
)
def test_a_fractional_rank_stays_within_the_sample(probability, rank):
    found = stats._fractional_rank(6, 0.5, probability)
    if rank is None:
        assert 1 < found < 2
        assert special.betainc(found, 7 - found, 0.5) == pytest.approx(probability, abs=1e-9)
    else:
        assert found == pytest.approx(rank)


# --- validation


def runs_of(*p95):
    return [make_result(np.full(100, ms)) for ms in p95]


def test_a_spread_that_is_exactly_the_limit_is_not_met():
    limit = spread([1.0, 1.1])
    assert not judge(runs_of(1.0, 1.1), max_p95_spread=limit).accepted
    assert judge(runs_of(1.0, 1.1), max_p95_spread=np.nextafter(limit, 1)).accepted


def test_two_runs_are_enough_and_the_verdict_carries_what_it_judged():
    results = runs_of(1.0, 1.3)
    validation = judge(results, max_p95_spread=0.2)
    assert validation.results == tuple(results)
    assert validation.deciding == "host"
    assert validation.max_p95_spread == 0.2
    (verdict,) = validation.clocks.values()
    assert verdict.clock == "host"
    assert verdict.p95_ms == pytest.approx((1.0, 1.3))
    assert verdict.mean_ms == pytest.approx((1.0, 1.3))


def test_a_criterion_that_is_not_met_has_its_causes():
    assert judge(runs_of(1.0, 1.3)).clocks["host"].causes
    assert judge(runs_of(1.0, 1.0)).clocks["host"].causes == ()


@pytest.mark.parametrize("clock", ["wall", "", "GPU", None])
def test_a_clock_that_does_not_exist(clock):
    with pytest.raises(ValueError, match=rf"clock={clock!r}: use 'auto', 'gpu' or 'host'"):
        deciding_clock(clock, runs_of(1.0))


class Recorder:
    """A watch that notes what it is asked."""

    def __init__(self):
        self.looks, self.asked = 0, []

    def look(self):
        self.looks += 1

    def forget(self):
        self.looks = 0

    def observations(self, result):
        self.asked.append(result)
        return ("seen",)


def test_every_setting_reaches_every_run():
    watch = Recorder()
    settings = {"warmup_iters": 60, "measure_iters": 120, "precision": "tf32", "watch": watch}
    model, inputs = TinyNet(), [torch.zeros(1, 3, 8, 8)]
    device = torch.device("cpu")
    pairs = list(validation_runs(model, inputs, device=device, **settings))
    results = [result for result, seen in pairs if seen == ("seen",)]
    assert len(results) == 3
    assert watch.asked == results
    assert watch.looks == 9
    for result in results:
        assert (result.precision, result.device, result.host.n) == ("tf32", "cpu", 120)
        assert result.warmup_used >= 60


def test_the_defaults_are_the_protocols():
    signature, protocol = inspect.signature(validation_runs), Parameters()
    for name in ("runs", "warmup_iters", "measure_iters", "isolation", "clock"):
        assert signature.parameters[name].default == getattr(protocol, name)
    assert inspect.signature(judge).parameters["max_p95_spread"].default == protocol.max_p95_spread


# --- results


def test_a_file_of_samples_that_is_missing_is_named(tmp_path):
    with pytest.raises(ResultsError, match=r"cannot read .*run_9\.npz: No such file"):
        load_samples(tmp_path / "run_9.npz")
