"""Ratios: right size on what a host's clock does, power, and a verdict that is its interval."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from simulated_series import ar1, host_like, normal

from helpers.annex.comparison.stats import (
    FASTER,
    MIN_ROUNDS,
    SAME,
    SLOWER,
    block_length,
    compare_rounds,
    placement_bound,
)

BLOCK, DRAWS = 10, 500
SAMPLES = Path(__file__).parents[2] / "benchmarks/repeatability/methods/samples.npz"


def in_rounds(generator, samples, rounds, entries, sd=0.1):
    """Medians (rounds, entries) of one stream of log-latencies dealt out in random order."""
    blocks = np.median(samples.reshape(rounds, entries, BLOCK), axis=2)
    return np.exp(sd * generator.permuted(blocks, axis=1))


def host(generator, rounds, entries):
    return in_rounds(generator, host_like(generator, rounds * entries * BLOCK), rounds, entries)


def modes(generator, rounds, entries):
    """A CPU that changes its mode every 400 samples, by 40 %, under 3 % of noise."""
    n = rounds * entries * BLOCK
    state = np.cumsum(generator.random(n) < 1 / 400) % 2
    return in_rounds(generator, 4 * state + 0.3 * normal(generator, n), rounds, entries)


def independent(generator, rounds, entries):
    return np.exp(0.02 * generator.standard_normal((rounds, entries)))


def alarms(series, replicates, rounds, entries=2, shift=1.0):
    """How many comparisons of equals find a difference, of the first entry if there is a shift."""
    generator, found = np.random.default_rng([rounds, entries, *series.__name__.encode()]), 0
    for _ in range(replicates):
        block_ms = series(generator, rounds, entries)
        block_ms[:, 1] *= shift
        ratios = compare_rounds(block_ms, draws=DRAWS)
        found += any(r.verdict != SAME for r in (ratios if shift == 1 else ratios[:1]))
    return found


@pytest.mark.parametrize("series", [independent, host, modes])
def test_false_alarms_of_one_comparison_are_about_5_percent(series):
    interval = binomtest(alarms(series, 600, rounds=40), 600).proportion_ci(0.99, "exact")
    assert interval.low <= 0.05 <= interval.high


def test_power_on_a_host_clock_that_drifts():
    assert alarms(host, 60, rounds=100, shift=1.03) >= 48
    assert alarms(modes, 60, rounds=100, shift=1.03) >= 48


def committed(clock):
    """(pairs, 25 rounds, 2) block medians dealt out of the committed H100 samples, as they came."""
    generator, pairs = np.random.default_rng(0), []
    prefix = {"gpu": "gpu_", "host": "host_consecutive_"}[clock]
    with np.load(SAMPLES) as stored:
        for name in stored.files:
            if name.startswith("repeat/") and name.split("/")[2].startswith(prefix):
                blocks = np.median(stored[name][:450].reshape(3, 25, 2, 3), axis=3)
                pairs += list(generator.permuted(blocks, axis=2))
    return np.array(pairs)


@pytest.mark.parametrize(("clock", "shift"), [("gpu", 1.01), ("host", 1.03)])
def test_size_and_power_on_the_samples_of_an_h100(clock, shift):
    pairs = committed(clock)
    false = sum(compare_rounds(p, draws=DRAWS)[0].verdict != SAME for p in pairs)
    found = sum(compare_rounds(p * [1, shift], draws=DRAWS)[0].verdict == SLOWER for p in pairs)
    interval = binomtest(false, len(pairs)).proportion_ci(0.99, "exact")
    assert len(pairs) > 100
    assert interval.low <= 0.05 <= interval.high
    assert found >= 0.8 * len(pairs)


def test_a_gpu_difference_of_1_percent_is_found_and_has_its_sign():
    generator = np.random.default_rng(3)
    block_ms = 1.3 * np.exp(0.001 * generator.standard_normal((60, 3)))
    block_ms[:, 1] *= 1.01
    block_ms[:, 2] *= 0.99
    slower, faster = compare_rounds(block_ms)
    assert (slower.verdict, faster.verdict) == (SLOWER, FASTER)
    assert slower.low < 1.01 < slower.high
    assert slower.ratio == pytest.approx(1.01, abs=0.001)
    assert slower.detectable < 0.002


def test_the_detectable_difference_is_found_four_times_in_five():
    generator = np.random.default_rng(0)
    size = np.mean(
        [
            compare_rounds(independent(generator, 60, 2), draws=DRAWS)[0].detectable
            for _ in range(20)
        ]
    )
    found = alarms(independent, 200, rounds=60, shift=1 + size)
    assert 0.70 * 200 <= found <= 0.90 * 200


def test_the_reference_may_drift_without_moving_the_ratio():
    generator = np.random.default_rng(0)
    drift = np.linspace(1, 2, 60)[:, None]
    (ratio,) = compare_rounds(drift * independent(generator, 60, 2))
    assert ratio.ratio == pytest.approx(1, abs=0.01)
    assert ratio.verdict == SAME


def test_more_comparisons_widen_the_intervals():
    block_ms = independent(np.random.default_rng(1), 60, 9)
    alone, among = compare_rounds(block_ms[:, :2])[0], compare_rounds(block_ms)[0]
    assert alone.ratio == among.ratio
    assert among.high - among.low > 1.2 * (alone.high - alone.low)
    assert among.detectable > alone.detectable


def test_rounds_that_went_wrong_do_not_decide():
    block_ms = independent(np.random.default_rng(2), 60, 2)
    block_ms[:9, 1] *= 30
    (ratio,) = compare_rounds(block_ms)
    assert ratio.verdict == SAME
    assert ratio.ratio == pytest.approx(1, abs=0.02)


def test_equal_readings_are_no_difference_and_equal_ones_apart_are_one():
    (same,) = compare_rounds(np.full((30, 2), 1.5))
    (slower,) = compare_rounds(np.tile([1.0, 2.0], (30, 1)))
    assert (same.ratio, same.verdict, same.detectable) == (1, SAME, 0)
    assert slower.verdict == SLOWER


def test_blocks_are_as_long_as_the_autocorrelation_demands():
    generator = np.random.default_rng(0)
    assert block_length(generator.standard_normal((150, 1))) <= 5
    assert block_length(ar1(0.8)(generator, 150)[:, None]) > 8
    assert block_length(ar1(0.999)(generator, 20)[:, None]) <= 4


@pytest.mark.parametrize("copies", [1, 2, 3, 6])
def test_equal_variants_exceed_the_copies_bound_5_times_in_100(copies):
    generator = np.random.default_rng(copies)
    levels = np.exp(0.006 * generator.standard_normal((4000, copies + 2)))
    beyond = 0
    for reference, variant, *others in levels:
        bound = placement_bound([other / reference for other in others])
        beyond += abs(math.log(variant / reference)) > math.log1p(bound)
    assert binomtest(beyond, 4000).proportion_ci(0.99).low <= 0.05
    assert beyond >= 0.03 * 4000


@pytest.mark.parametrize(
    "block_ms",
    [
        np.ones((30, 1)),
        np.ones(30),
        np.ones((MIN_ROUNDS - 1, 2)),
        np.vstack([np.ones((30, 2)), [[1, 0]]]),
        np.vstack([np.ones((30, 2)), [[math.nan, 1]]]),
        np.vstack([np.ones((30, 2)), [[math.inf, 1]]]),
    ],
)
def test_what_cannot_be_compared_is_refused(block_ms):
    with pytest.raises(ValueError, match="block_ms"):
        compare_rounds(block_ms)
