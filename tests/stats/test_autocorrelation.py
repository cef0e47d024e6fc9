"""Autocorrelation times and drift tests against their formulas, written out another way."""

import numpy as np
import pytest
from scipy import stats
from simulated_series import ar1

from helpers.stats.autocorrelation import best_shift, correlation_time


def rng(seed=0):
    return np.random.default_rng(seed)


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


SERIES = {
    "white": lambda n: rng(n).normal(size=n),
    "AR(1), 0.5": lambda n: ar1(0.5)(rng(n), n),
    "AR(1), 0.9": lambda n: ar1(0.9)(rng(n), n),
    "walk": lambda n: np.cumsum(rng(n).normal(size=n)),
    "wave": lambda n: np.sin(np.arange(n) / 3) + 0.1 * rng(n).normal(size=n),
}


@pytest.mark.parametrize("fitted", [1, 2])
@pytest.mark.parametrize("n", [4, 5, 6, 7, 8, 9, 10, 37, 112, 300])
@pytest.mark.parametrize("series", SERIES.values(), ids=SERIES)
def test_a_correlation_time_is_geyers(series, n, fitted):
    samples = series(n)
    assert correlation_time(samples, fitted) == pytest.approx(time_by_the_book(samples, fitted))


def test_three_samples_say_nothing_of_their_correlation():
    assert correlation_time(np.array([1.0, 2.0, 3.0])) == (1.0, 3)


@pytest.mark.parametrize("factor", [1e-9, 1e-6, 1e6, 1e9])
def test_a_correlation_time_is_free_of_the_unit(factor):
    samples = 1 + 0.1 * ar1(0.5)(rng(1), 1000)
    assert correlation_time(factor * samples) == pytest.approx(correlation_time(samples))
    constant = np.full(1000, 0.1 * factor)
    assert correlation_time(constant) == (1.0, 1000)


def ranks_of(samples):
    return stats.rankdata(samples) - (samples.size + 1) / 2


@pytest.mark.parametrize("n", [50, 51, 60, 80, 120, 400])
@pytest.mark.parametrize("series", SERIES.values(), ids=SERIES)
def test_the_best_split_is_the_largest_excursion_of_the_cumulated_ranks(series, n):
    ranks = ranks_of(series(n) + 0.5 * (np.arange(n) > n / 3))
    excursions = [abs(ranks[:k].sum()) for k in range(1, n)]
    index = 1 + int(np.argmax(excursions))
    residuals = ranks.copy()
    residuals[:index] -= ranks[:index].mean()
    residuals[index:] -= ranks[index:].mean()
    variance = residuals.var() * time_by_the_book(residuals, fitted=2)[0]
    expected = stats.kstwobign.sf(max(excursions) / np.sqrt(n * variance))
    found, p_value = best_shift(ranks)
    assert found == index
    assert p_value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("index", [1, 25, 49])
def test_a_split_may_be_anywhere(index):
    ranks = ranks_of(np.repeat([1.0, 2.0], [index, 50 - index]))
    assert best_shift(ranks) == (index, 0.0)
