"""Intervals over processes: against SciPy, what they refuse, and how often they cover (simulated).

A process has its level, lognormal around the machine's; a session holds k processes.
"""

import math

import numpy as np
import pytest
from scipy import stats

from helpers.stats import further_interval, replicate_interval, welch_interval

LEVEL = 1.3  # ms
DRAWS = 4000
EXACT = 3 * math.sqrt(0.95 * 0.05 / DRAWS)  # binomial, three standard errors: 1.03 points


def levels(generator, k, sd, level=LEVEL):
    return level * np.exp(sd * generator.normal(size=(DRAWS, k)))


def covered(intervals, truths):
    low, high = np.transpose(intervals)
    return np.mean((low <= truths) & (truths <= high))


def geometric_mean(sessions):
    return np.exp(np.log(sessions).mean(axis=-1))


def test_intervals_are_scipys_on_the_logarithms():
    first, second = np.random.default_rng(0).lognormal(size=6), [1.0, 1.5, 1.2, 2.0]
    t = stats.ttest_1samp(np.log(first), 0).confidence_interval(0.9)
    assert replicate_interval(first, 0.9) == pytest.approx(np.exp(t), rel=1e-12)
    inner, outer = np.log(replicate_interval(first)), np.log(further_interval(first))
    assert outer - outer.mean() == pytest.approx(math.sqrt(2) * (inner - inner.mean()))
    assert outer.mean() == pytest.approx(inner.mean())
    welch = stats.ttest_ind(np.log(second), np.log(first), equal_var=False)
    ratio, *interval = welch_interval(first, second, 0.9)
    assert ratio == pytest.approx(geometric_mean(second) / geometric_mean(first))
    assert interval == pytest.approx(np.exp(welch.confidence_interval(0.9)), rel=1e-12)


def test_equal_values_have_intervals_without_width():
    assert replicate_interval([2.0] * 3) == pytest.approx((2, 2))
    assert further_interval([2.0] * 3) == pytest.approx((2, 2))
    assert welch_interval([2.0] * 2, [3.0] * 2) == pytest.approx((1.5, 1.5, 1.5))


@pytest.mark.parametrize("interval", [replicate_interval, further_interval, welch_interval])
@pytest.mark.parametrize("values", [[1.0, 1.1], [], [1, 1, 0.0], [1, 1, -1], [1, 1, math.nan]])
def test_what_gives_no_interval_is_refused(interval, values):
    given = ([1.0, 2.0], values[1:]) if interval is welch_interval else (values,)
    with pytest.raises(ValueError, match=r"needed|finite"):
        interval(*given)


@pytest.mark.parametrize("sd", [0.0002, 0.02])
@pytest.mark.parametrize("k", [3, 6, 8])
def test_the_level_and_a_further_session_are_covered(k, sd):
    generator = np.random.default_rng([k, int(1e6 * sd)])
    sessions, others = levels(generator, k, sd), levels(generator, k, sd)
    of_level = [replicate_interval(session) for session in sessions]
    of_next = [further_interval(session) for session in sessions]
    assert covered(of_level, LEVEL) == pytest.approx(0.95, abs=EXACT)
    assert covered(of_next, geometric_mean(others)) == pytest.approx(0.95, abs=EXACT)


@pytest.mark.parametrize("slow", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("k", [3, 8])
def test_two_levels_are_covered_by_what_is_known_of_them(k, slow):
    """Levels 1.2 % apart, as an H100 shows them; the sessions alone miss the next one too often."""
    generator = np.random.default_rng([k, int(10 * slow)])
    first, other = (
        levels(generator, k, 0.0006) * (1 + 0.012 * (generator.random((DRAWS, k)) < slow))
        for _ in range(2)
    )
    alone, pooled = (
        covered([further_interval(one, 0.95, *known) for one in first], geometric_mean(other))
        for known in ((), (0.006, 6))
    )
    assert pooled >= 0.93
    assert k > 3 or alone < 0.90


@pytest.mark.parametrize(("k", "sd"), [((3, 3), (0.008, 0.008)), ((3, 8), (0.014, 0.0006))])
def test_a_ratio_is_covered_whatever_the_variances(k, sd):
    """Equal variants are called different in 5 %. Welch is approximate: with 3 and 3, below 5 %."""
    generator = np.random.default_rng(k)
    pairs = zip(
        levels(generator, k[0], sd[0]), levels(generator, k[1], sd[1], 2 * LEVEL), strict=True
    )
    intervals = [welch_interval(*pair)[1:] for pair in pairs]
    assert 0.95 - EXACT <= covered(intervals, 2.0) <= 0.97 + EXACT


def test_power_for_a_difference_of_3_percent_at_6_processes():
    for sd, power in ((0.008, 1.0), (0.014, 0.90)):  # as eager fp32 and tf32 vary
        generator = np.random.default_rng(6)
        pairs = zip(levels(generator, 6, sd), levels(generator, 6, sd, 1.03 * LEVEL), strict=True)
        found = 1 - covered([welch_interval(*pair)[1:] for pair in pairs], 1.0)
        assert found == pytest.approx(power, abs=0.015)
