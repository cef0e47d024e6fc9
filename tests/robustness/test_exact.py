"""Figures and edges worked out by another way; each was found untested by a mutation run."""

import math

import numpy as np
import pytest
from fakes import make_run
from scipy import special
from scipy import stats as scipy_stats

from helpers.stats import chance_of_failing, correlation_time, quantile_interval, spread
from helpers.validation import judge


def coin(n=2000, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat([1.0, 2.0], n // 2))


def test_the_chance_of_failing_of_a_coin_is_a_half():
    """Two runs of one sample each differ half of the time, and then fail, unless at the limit."""
    assert chance_of_failing(coin(), run_length=1, runs=2) == pytest.approx(0.5, abs=0.05)
    limit = spread([1.0, 2.0])
    assert chance_of_failing(coin(), run_length=1, runs=2, limit=limit) == 0
    below = np.nextafter(limit, 0)
    assert chance_of_failing(coin(), run_length=1, runs=2, limit=below) > 0.4


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


def test_a_spread_that_is_exactly_the_limit_is_not_met():
    runs, limit = [make_run(np.full(100, ms)) for ms in (1.0, 1.1)], float(spread([1.0, 1.1]))
    for allowed, met in ((limit, False), (math.nextafter(limit, 1), True)):
        verdict = judge(runs, max_p95_spread=allowed).clocks["host"]
        assert verdict.met is met
        assert verdict.p95_ms == pytest.approx((1.0, 1.1))
