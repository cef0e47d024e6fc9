"""Summaries, spreads, intervals and drift: invariants, references, refusals and their reasons."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_series import (
    BIMODAL_P95,
    HOST_AUTOCORRELATION,
    NORMAL_P95,
    ar1,
    bimodal,
    host_like,
    lognormal,
    normal,
)

from helpers.stats import (
    chance_of_failing,
    effective_sample_size,
    find_shift,
    minimum_effective_size,
    percentile,
    quantile_interval,
    spread,
    summarise,
)

latencies = st.lists(st.floats(0.001, 1000), min_size=1, max_size=50)


def rng(seed=0):
    return np.random.default_rng(seed)


# --- summaries


@given(latencies)
def test_summary_is_ordered_and_keeps_every_sample(samples):
    summary = summarise(samples)
    assert summary.min <= summary.p50 <= summary.p95 <= summary.max
    assert summary.min <= summary.mean * (1 + 1e-12)
    assert summary.mean <= summary.max * (1 + 1e-12)
    assert summary.samples_ms.tolist() == samples
    assert summary.n == len(samples)


@given(latencies, st.randoms(use_true_random=False))
def test_summary_does_not_depend_on_the_order(samples, random):
    shuffled = random.sample(samples, len(samples))
    first, second = summarise(samples), summarise(shuffled)
    for figure in ("mean", "p50", "p95", "std", "min", "max"):
        assert getattr(first, figure) == pytest.approx(getattr(second, figure), abs=1e-12)


def test_summary_agrees_with_pandas():
    samples = rng().lognormal(size=501)
    summary, reference = summarise(samples), pd.Series(samples)
    assert summary.p95 == pytest.approx(reference.quantile(0.95), rel=1e-12)
    assert summary.p50 == pytest.approx(reference.median(), rel=1e-12)
    assert summary.mean == pytest.approx(reference.mean(), rel=1e-12)
    assert summary.std == pytest.approx(reference.std(), rel=1e-12)


def test_summary_of_one_sample_and_of_integers():
    summary = summarise([3])
    assert (summary.mean, summary.p50, summary.p95, summary.std, summary.n) == (3.0, 3.0, 3.0, 0, 1)
    assert summary.samples_ms.dtype == np.float64


def test_summary_neither_shares_nor_lets_change_the_samples():
    samples = np.array([1.0, 2.0])
    summary = summarise(samples)
    samples[0] = 9.0
    assert summary.samples_ms[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        summary.samples_ms[0] = 9.0
    with pytest.raises(FrozenInstanceError):
        summary.mean = 9.0


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ([], "empty"),
        ([[1.0, 2.0]], "one-dimensional"),
        (2.0, "one-dimensional"),
        ([1.0, math.nan], "finite, got nan at index 1"),
        ([math.inf], "finite, got inf at index 0"),
        ([1.0, -0.5], "negative latency, -0.5 ms at index 1: check the clock that measured it$"),
    ],
)
def test_summary_refuses(samples, reason):
    with pytest.raises(ValueError, match=reason):
        summarise(samples)


@pytest.mark.parametrize("q", [0.0, 1.0, 95, -0.1, math.nan])
def test_percentile_refuses_what_is_no_fraction(q):
    with pytest.raises(ValueError, match="q must lie strictly between 0 and 1"):
        percentile([1.0, 2.0], q)


def test_percentile_speaks_of_samples():
    with pytest.raises(ValueError, match=r"^samples is empty$"):
        percentile([], 0.5)


def test_spread_of_the_protocol():
    assert spread([1.789, 2.076, 1.743]) == pytest.approx((2.076 - 1.743) / 1.8693333333)
    assert spread([2.0, 2.0]) == 0


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0], "at least two"),
        ([], "empty"),
        ([1.0, math.nan], "finite"),
        ([0.0, 0.0], "positive, got 0"),
        ([-2.0, 1.0], "positive"),
    ],
)
def test_spread_refuses(values, reason):
    with pytest.raises(ValueError, match=reason):
        spread(values)


# --- effective sample size


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_effective_sample_size_of_ar1(rho):
    n = 20_000
    sizes = [effective_sample_size(ar1(rho)(rng(seed), n)) for seed in range(20)]
    assert np.median(sizes) == pytest.approx(n * (1 - rho) / (1 + rho), rel=0.1)


def test_effective_sample_size_is_never_more_than_n_nor_less_than_one():
    alternating = np.tile([1.0, 2.0], 100)
    step = np.repeat([1.0, 2.0], 100)
    assert effective_sample_size(alternating) == 200
    assert effective_sample_size(step) == 1
    assert effective_sample_size(np.arange(1.0, 201.0)) < 5


@pytest.mark.parametrize("n", [1, 2, 3, 100])
def test_effective_sample_size_of_a_constant_is_n(n):
    assert effective_sample_size(np.full(n, 0.1)) == n


# --- intervals


def test_minimum_is_72_for_a_p95_and_6_for_a_median():
    assert minimum_effective_size(0.95, 0.95) == 72
    assert minimum_effective_size(0.05, 0.95) == 72
    assert minimum_effective_size(0.50, 0.95) == 6
    assert 0.95**72 <= 0.025 < 0.95**71


def test_intervals_follow_a_change_of_unit_and_of_origin():
    samples = ar1(0.5)(rng(1), 600)
    low, high = quantile_interval(samples)
    assert quantile_interval(3 * samples + 7) == pytest.approx(
        (3 * low + 7, 3 * high + 7), rel=1e-9
    )


def test_quantile_interval_mirrors_that_of_the_opposite_tail():
    samples = lognormal(rng(2), 1000)
    low, high = quantile_interval(samples, q=0.9)
    assert quantile_interval(-samples, q=0.1) == pytest.approx((-high, -low), rel=1e-9)


@pytest.mark.parametrize("series", [normal, lognormal, bimodal, ar1(0.5)])
def test_intervals_hold_their_estimate_and_widen_with_confidence(series):
    samples = series(rng(3), 2000)
    low, high = quantile_interval(samples)
    wider_low, wider_high = quantile_interval(samples, confidence=0.99)
    assert wider_low < low <= percentile(samples, 0.95) <= high < wider_high


def test_autocorrelation_widens_the_intervals():
    samples = ar1(0.9)(rng(4), 5000)
    shuffled = rng(5).permutation(samples)
    low, high = quantile_interval(samples)
    shuffled_low, shuffled_high = quantile_interval(shuffled)
    assert high - low > 1.5 * (shuffled_high - shuffled_low)


def test_quantile_interval_is_near_the_binomial_one_when_samples_are_independent():
    """Textbook order statistics for n = 5,000 and q = 0.95: ranks 4,720 and 4,781."""
    samples = rng(6).permutation(5000) + 1.0
    low, high = quantile_interval(samples)
    assert low == pytest.approx(4720, abs=5)
    assert high == pytest.approx(4781, abs=5)


@pytest.mark.parametrize(
    ("series", "p95"),
    [
        (normal, NORMAL_P95),
        (lognormal, math.exp(NORMAL_P95)),
        (bimodal, BIMODAL_P95),
        (ar1(0.5), NORMAL_P95),
    ],
)
def test_quantile_interval_covers(series, p95):
    generator = rng(7)
    intervals = np.array([quantile_interval(series(generator, 500)) for _ in range(200)])
    assert np.mean((intervals[:, 0] <= p95) & (p95 <= intervals[:, 1])) >= 0.90


def test_too_few_samples_are_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"71 samples are worth .* needs at least 72: measure"):
        quantile_interval(normal(rng(8), 71))
    with pytest.raises(ValueError, match=r"1 samples are worth 1\.0 independent"):
        quantile_interval([1.0])


def test_autocorrelated_samples_are_refused_with_the_reason():
    samples = ar1(0.99)(rng(9), 1000)
    with pytest.raises(ValueError, match=r"1000 samples are worth \d+\.\d independent ones here"):
        quantile_interval(samples)


def test_host_like_samples_are_refused():
    generator = rng(10)
    sizes = np.array([effective_sample_size(host_like(generator, 500)) for _ in range(300)])
    assert np.mean(sizes < 72) >= 0.98


def test_host_like_series_has_the_measured_autocorrelation():
    samples = host_like(rng(11), 2_000_000)
    for lag, expected in HOST_AUTOCORRELATION.items():
        measured = np.mean(samples[lag:] * samples[:-lag])
        assert measured == pytest.approx(expected, abs=0.05)


def test_clustered_exceedances_are_refused_though_the_samples_are_uncorrelated():
    generator = rng(12)
    scale = np.repeat(generator.choice([1.0, 10.0], p=[0.9, 0.1], size=10), 200)
    samples = scale * generator.normal(size=2000)
    assert effective_sample_size(samples) > 500
    with pytest.raises(ValueError, match=r"for the 0\.95-quantile needs at least 72"):
        quantile_interval(samples)


@pytest.mark.parametrize(("sign", "q"), [(1, 0.95), (-1, 0.05)])
def test_ties_with_the_quantile_are_refused_when_they_cluster(sign, q):
    """Independent on one side of the quantile, clustered on the other: the cautious side counts."""
    generator, n, cluster = rng(24), 2000, np.arange(500, 700)
    samples = generator.uniform(-100, 0, n)
    samples[cluster] = generator.permutation(np.repeat([1.0, -101.0], 100))  # mean as elsewhere
    samples[generator.choice(np.setdiff1d(np.arange(n), cluster), 80, replace=False)] = 2.0
    samples *= sign
    assert percentile(samples, q) == sign
    assert effective_sample_size(samples) > 1000
    with pytest.raises(ValueError, match=rf"for the {q}-quantile needs at least 72"):
        quantile_interval(samples, q)
    low, high = quantile_interval(generator.permutation(samples), q)
    assert low <= sign <= high


def test_tied_and_constant_samples_have_an_interval():
    coarse = np.round(normal(rng(13), 1000), 0)
    low, high = quantile_interval(coarse)
    assert low <= percentile(coarse, 0.95) <= high
    assert quantile_interval(np.full(100, 1.7)) == (1.7, 1.7)


def test_intervals_refuse_unusable_arguments():
    with pytest.raises(ValueError, match="finite"):
        quantile_interval([1.0] * 99 + [math.nan])
    with pytest.raises(ValueError, match="confidence must lie strictly between 0 and 1, got 95"):
        quantile_interval(np.ones(100), confidence=95)


def test_a_million_samples_give_a_narrow_interval():
    low, high = quantile_interval(normal(rng(14), 1_000_000))
    assert NORMAL_P95 - 0.01 < low < high < NORMAL_P95 + 0.01


# --- drift


def test_a_still_window_does_not_shift():
    generator = rng(15)
    shifts = [find_shift(1 + 0.05 * ar1(0.5)(generator, 500)) for _ in range(200)]
    assert np.mean([shift.p_value < 0.05 for shift in shifts]) <= 0.09


def test_a_level_shift_is_found_where_it_is_in_spite_of_outliers():
    samples = 2 + 0.04 * ar1(0.5)(rng(16), 1000)
    samples[600:] *= 1.05
    samples[::100] = 50.0
    shift = find_shift(samples)
    assert shift.p_value < 0.001
    assert abs(shift.index - 600) < 20
    assert shift.relative == pytest.approx(0.05, abs=0.01)


def test_a_shift_is_relative_and_blind_to_the_unit():
    samples = 2 + 0.04 * normal(rng(18), 500)
    first, second = find_shift(samples), find_shift(1000 * samples)
    assert second.relative == pytest.approx(first.relative, rel=1e-9)
    assert second.p_value == pytest.approx(first.p_value)


def test_shifts_of_series_without_noise():
    constant = find_shift(np.full(100, 1.7))
    assert (constant.relative, constant.p_value) == (0, 1)
    step = find_shift(np.repeat([1.0, 2.0], 50))
    assert (step.index, step.p_value) == (50, 0)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ([1.0], "50 samples or more, got 1"),
        (np.zeros(100), "must be positive, got 0"),
        ([1.0] * 99 + [math.nan], "finite"),
    ],
)
def test_shift_refuses(samples, reason):
    with pytest.raises(ValueError, match=reason):
        find_shift(samples)


# --- chance of failing


def test_chance_of_failing_is_between_never_and_always():
    assert chance_of_failing(np.full(500, 1.3), 500, draws=20) == 0
    wild = rng(19).pareto(0.5, size=500) + 1
    assert chance_of_failing(wild, 50, draws=50) > 0.9


def test_chance_of_failing_falls_with_the_limit_and_grows_with_the_runs():
    samples = rng(20).lognormal(sigma=0.6, size=500)
    chances = [chance_of_failing(samples, 500, limit=limit) for limit in (0.05, 0.10, 0.20)]
    assert chances[0] > chances[1] > chances[2]
    assert chance_of_failing(samples, 500, runs=6) > chances[1]


def test_chance_of_failing_sees_autocorrelation():
    samples = np.exp(0.25 * ar1(0.9)(rng(21), 5000))
    shuffled = rng(22).permutation(samples)
    assert chance_of_failing(samples, 500) > 2 * chance_of_failing(shuffled, 500)


def test_chance_of_failing_repeats_with_its_seed():
    samples = lognormal(rng(23), 500)
    first = [chance_of_failing(samples, 500, limit=0.3, draws=50, seed=seed) for seed in (1, 1)]
    assert first[0] == first[1]
    generator = rng(1)
    assert chance_of_failing(samples, 500, limit=0.3, draws=50, seed=generator) == first[0]


def test_chance_of_failing_is_of_a_thousand_draws_from_seed_zero():
    samples = lognormal(rng(23), 500)
    chance = chance_of_failing(samples, 500, limit=0.3)
    assert chance == chance_of_failing(samples, 500, limit=0.3, draws=1000, seed=0)
    assert 0 < chance < 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"run_length": 0}, "run_length must be at least 1, got 0"),
        ({"run_length": 10, "runs": 1}, "runs must be at least 2, got 1"),
        ({"run_length": 10, "draws": 0}, "draws must be at least 1, got 0"),
        ({"run_length": 10, "q": 1.0}, "q must lie"),
    ],
)
def test_chance_of_failing_refuses(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        chance_of_failing(np.ones(100), **arguments)
