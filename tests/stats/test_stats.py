"""Summaries, spreads, intervals of a run, shifts: invariants, references and what is refused."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats
from simulated_series import BIMODAL_P95, NORMAL_P95, ar1, bimodal, lognormal, normal

from helpers.stats import (
    chance_of_failing,
    correlation_time,
    find_shift,
    percentile,
    quantile_interval,
    spread,
    summarise,
)


def rng(seed=0):
    return np.random.default_rng(seed)


SERIES = {
    "white": lambda n: rng(n).normal(size=n),
    "AR(1), 0.5": lambda n: ar1(0.5)(rng(n), n),
    "AR(1), 0.9": lambda n: ar1(0.9)(rng(n), n),
    "walk": lambda n: np.cumsum(rng(n).normal(size=n)),
    "wave": lambda n: np.sin(np.arange(n) / 3) + 0.1 * rng(n).normal(size=n),
}
each_series = pytest.mark.parametrize("series", SERIES.values(), ids=SERIES)

# --- summaries


@given(st.lists(st.floats(0.001, 1000), min_size=2, max_size=50))
def test_summary_keeps_every_sample_and_agrees_with_pandas(samples):
    summary, reference = summarise(samples), pd.Series(samples)
    assert summary.samples_ms.tolist() == samples
    assert not summary.samples_ms.flags.writeable
    quantiles = reference.quantile([0.5, 0.95]).tolist()
    assert [summary.p50, summary.p95] == pytest.approx(quantiles, rel=1e-12)
    for figure in ("mean", "std", "min", "max"):
        expected = getattr(reference, figure)()
        assert getattr(summary, figure) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert summarise([3]).std == 0


REFUSED = [(summarise, [[1.0]]), (summarise, [math.inf]), (summarise, [1.0, -0.5]), (summarise, [])]
REFUSED += [(spread, [1.0]), (spread, [1.0, math.nan]), (spread, [0.0, 0.0]), (spread, [-2, 1.0])]
REFUSED += [(find_shift, [1.0]), (find_shift, np.zeros(100))]


@pytest.mark.parametrize(("function", "samples"), REFUSED)
def test_what_gives_no_figure_is_refused(function, samples):
    with pytest.raises(ValueError, match=r"shape|finite|negative|two values|too few, or not above"):
        function(samples)


# --- autocorrelation


def time_by_the_book(series, fitted=1):
    """Geyer's initial monotone sequence, lag by lag: (τ, degrees of freedom)."""
    n, centred = series.size, series - series.mean()
    rho = [centred[: n - k] @ centred[k:] / (centred @ centred) for k in range(n)]
    total, least, last = 1.0, np.inf, 0
    for k in range(0, n - 1, 2):
        if rho[k] + rho[k + 1] <= 0:
            break
        least = min(least, rho[k] + rho[k + 1])
        total += 2 * least - (2 if k == 0 else 0)  # ρ(0) counts once, and is the 1 above
        last = k + 1
    lags = 2 * last + 1
    tau = total / max(1 - fitted * lags / n, 1 / n)
    return min(max(tau, 1), n), n / lags


@pytest.mark.parametrize("fitted", [1, 2])
@pytest.mark.parametrize("n", [4, 5, 6, 7, 37, 112, 300])
@each_series
def test_a_correlation_time_is_geyers(series, n, fitted):
    samples = series(n)
    assert correlation_time(samples, fitted) == pytest.approx(time_by_the_book(samples, fitted))


@pytest.mark.parametrize(
    ("samples", "tau"),
    [
        (np.array([1.0, 2.0, 3.0]), 1),  # too few to say
        (np.full(1000, 0.1), 1),
        (np.tile([1.0, 2.0], 100), 1),  # never less
        (np.repeat([1.0, 2.0], 100), 200),  # never more than n
    ],
)
def test_correlation_times_at_the_edges(samples, tau):
    assert correlation_time(samples).tau == tau


# --- the interval of a run


@pytest.mark.parametrize(
    ("series", "p95"),
    [
        (normal, NORMAL_P95),
        (lognormal, math.exp(NORMAL_P95)),
        (bimodal, BIMODAL_P95),
        (ar1(0.5), NORMAL_P95),
    ],
)
def test_quantile_interval_covers_holds_its_estimate_and_widens_with_confidence(series, p95):
    generator = rng(7)
    samples = [series(generator, 500) for _ in range(200)]
    low, high = np.transpose([quantile_interval(run) for run in samples])
    assert np.mean((low <= p95) & (p95 <= high)) >= 0.90
    inner_low, inner_high = quantile_interval(samples[0], confidence=0.9)
    assert low[0] < inner_low < percentile(samples[0], 0.95) < inner_high < high[0]


@settings(deadline=None)
@given(hnp.arrays(float, st.integers(1, 400), elements=st.floats(1e-4, 1e5)))
def test_an_interval_of_any_series_holds_its_estimate_or_is_refused(samples):
    assert 1 <= correlation_time(samples).tau <= samples.size
    try:
        low, high = quantile_interval(samples)
    except ValueError as error:
        assert "independent" in str(error)  # noqa: PT017 - both outcomes are right
    else:
        assert samples.min() <= low <= percentile(samples, 0.95) * (1 + 1e-9)
        assert percentile(samples, 0.95) * (1 - 1e-9) <= high <= samples.max()


def test_the_interval_of_the_median_of_ranks_is_hutsons():
    """Samples 1 … n in random order: a fractional rank is then its own quantile."""
    n = 400
    samples = rng().permutation(np.arange(1.0, n + 1))
    time = correlation_time((samples > n / 2).astype(float))
    assert time.tau == correlation_time(samples).tau == 1
    for confidence in (0.8, 0.95):
        low, high = quantile_interval(samples, q=0.5, confidence=confidence)
        assert low + high == pytest.approx(n + 1)  # symmetric about the median
        tail = stats.norm.sf(stats.t.isf((1 - confidence) / 2, time.freedom))
        # The low end lies below the median with probability 1 - tail.
        assert special.betainc(low, n - low + 1, 0.5) == pytest.approx(1 - tail, abs=1e-9)


def clustered(generator):
    """Uncorrelated samples whose extremes come together."""
    scale = np.repeat(generator.choice([1.0, 10.0], p=[0.9, 0.1], size=10), 200)
    return scale * generator.normal(size=2000)


@pytest.mark.parametrize(
    "samples", [[1.0], normal(rng(8), 71), ar1(0.99)(rng(9), 1000), clustered(rng(12))]
)
def test_what_is_worth_fewer_than_72_samples_is_refused(samples):
    assert 0.95**72 <= 0.025 < 0.95**71
    with pytest.raises(ValueError, match=r"samples are worth .* needs 72"):
        quantile_interval(samples)
    assert quantile_interval(rng(13).permutation(np.resize(samples, 2000)))


@pytest.mark.parametrize(("sign", "q"), [(1, 0.95), (-1, 0.05)])
def test_ties_with_the_quantile_are_refused_when_they_cluster(sign, q):
    """Independent on one side of the quantile, clustered on the other: the cautious side counts."""
    generator, n, cluster = rng(24), 2000, np.arange(500, 700)
    samples = generator.uniform(-100, 0, n)
    samples[cluster] = generator.permutation(np.repeat([1.0, -101.0], 100))  # mean as elsewhere
    samples[generator.choice(np.setdiff1d(np.arange(n), cluster), 80, replace=False)] = 2.0
    samples *= sign
    assert percentile(samples, q) == sign
    assert correlation_time(samples).tau < 2
    with pytest.raises(ValueError, match=r"needs 72"):
        quantile_interval(samples, q)
    low, high = quantile_interval(generator.permutation(samples), q)
    assert low <= sign <= high
    assert quantile_interval(np.full(72, 1.7)) == (1.7, 1.7)


# --- shifts


@pytest.mark.parametrize("n", [50, 51, 120, 400])
@each_series
def test_the_best_split_is_the_largest_excursion_of_the_cumulated_ranks(series, n):
    samples = np.exp(series(n) + 0.5 * (np.arange(n) > n / 3))
    ranks = stats.rankdata(samples) - (n + 1) / 2
    excursions = [abs(ranks[:k].sum()) for k in range(1, n)]
    index = 1 + int(np.argmax(excursions))
    residuals = np.r_[ranks[:index] - ranks[:index].mean(), ranks[index:] - ranks[index:].mean()]
    variance = residuals.var() * time_by_the_book(residuals, fitted=2)[0]
    expected = stats.kstwobign.sf(max(excursions) / np.sqrt(n * variance))
    found = find_shift(samples)
    assert (found.index, found.p_value) == (index, pytest.approx(expected, rel=1e-6))
    difference = np.median(samples[index:]) - np.median(samples[:index])
    assert found.relative == pytest.approx(difference / np.median(samples))


def test_shifts_of_series_without_noise():
    constant = find_shift(np.full(100, 1.7))
    assert (constant.relative, constant.p_value) == (0, 1)
    for index in (1, 25, 49):
        step = find_shift(np.repeat([1.0, 2.0], [index, 50 - index]))
        assert (step.index, step.p_value) == (index, 0)


# --- chance of failing


def test_chance_of_failing_falls_with_the_limit_and_grows_with_runs_and_autocorrelation():
    assert chance_of_failing(np.full(500, 1.3), 500, draws=20) == 0
    samples = rng(20).lognormal(sigma=0.6, size=500)
    chances = [chance_of_failing(samples, 500, limit=limit) for limit in (0.05, 0.10, 0.20)]
    assert chances[0] > chances[1] > chances[2]
    assert chance_of_failing(samples, 500, runs=6) > chances[1]
    assert chance_of_failing(samples, 500, seed=rng(0)) == chances[1]
    samples = np.exp(0.25 * ar1(0.9)(rng(21), 5000))
    shuffled = rng(22).permutation(samples)
    assert chance_of_failing(samples, 500) > 2 * chance_of_failing(shuffled, 500)


def test_the_chance_of_failing_of_a_coin_is_a_half():
    """Two runs of one sample each differ half of the time, and then fail, unless at the limit."""
    coin, limit = rng().permutation(np.repeat([1.0, 2.0], 1000)), spread([1.0, 2.0])
    for below, chance in ((0.1, 0.5), (np.nextafter(limit, 0), 0.5), (limit, 0)):
        found = chance_of_failing(coin, run_length=1, runs=2, limit=below)
        assert found == pytest.approx(chance, abs=0.05 if chance else 0)
