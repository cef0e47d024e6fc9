"""Percentiles, intervals that respect autocorrelation, shifts, and the 10 % criterion's spread.

Latencies measured one after the other are not independent: a slow CPU stays slow for seconds. The
integrated autocorrelation time τ = 1 + 2 Σ ρ(k) says how many samples in a row are worth one
independent sample; the intervals and tests below use n / τ where a textbook formula has n. All
functions take samples (n,) in the order in which they were measured; latencies are in ms.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from helpers.stats.autocorrelation import best_shift, correlation_time

PERCENTILE_METHOD = "linear"  # Hyndman & Fan type 7, the default of NumPy and of pandas

MIN_SAMPLES_FOR_SHIFT = 50


@dataclass(frozen=True)
class LatencySummary:
    """All samples of one clock in one run, and the figures derived from them (ms)."""

    samples_ms: np.ndarray  # (n,) float64, read-only, in the order of measurement, nothing removed
    mean: float
    p50: float
    p95: float
    std: float  # ddof = 1; 0.0 for a single sample
    min: float
    max: float

    @property
    def n(self) -> int:
        return self.samples_ms.size


@dataclass(frozen=True)
class Shift:
    """Where a window splits best into two levels, and by how much: `relative` to its median.

    `p_value`: how often a stationary series would seem to shift as much; judge by both.
    """

    index: int  # first sample of the second level
    relative: float  # median from there on minus the median before, over the median of all
    p_value: float


def summarise(samples_ms) -> LatencySummary:
    """Summarise latencies (n,) in ms; nothing is removed.

    Raises
    ------
    ValueError
        If the samples are empty, not one-dimensional, not finite, or negative.
    """
    samples = _checked(samples_ms).copy()
    if samples.min() < 0:
        raise ValueError(
            f"samples_ms holds a negative latency, {samples.min()} ms at index {samples.argmin()}: "
            "check the clock that measured it"
        )
    samples.flags.writeable = False
    return LatencySummary(
        samples_ms=samples,
        mean=float(samples.mean()),
        p50=percentile(samples, 0.50),
        p95=percentile(samples, 0.95),
        std=float(samples.std(ddof=1)) if samples.size > 1 else 0.0,
        min=float(samples.min()),
        max=float(samples.max()),
    )


def percentile(samples, q: float) -> float:
    """The q-quantile, 0 < q < 1, of samples (n,): q = 0.95 gives the p95."""
    _check_probability("q", q)
    return float(np.quantile(_checked(samples), q, method=PERCENTILE_METHOD))


def spread(values) -> float:
    """(max − min) / mean of at least two values, such as the p95 of the validation runs.

    Raises
    ------
    ValueError
        If there are fewer than two values, one is not finite, or their mean is not positive.
    """
    values = _checked(values, name="values")
    if values.size < 2:
        raise ValueError("spread needs at least two values, got 1: run the benchmark again")
    mean = values.mean()
    if mean <= 0:
        raise ValueError(f"spread is relative to the mean, which must be positive, got {mean}")
    return float((values.max() - values.min()) / mean)


def effective_sample_size(samples) -> float:
    """How many independent samples would tell as much about the mean: n / τ, from 1 to n."""
    samples = _checked(samples)
    return samples.size / correlation_time(samples).tau


def minimum_effective_size(q: float = 0.95, confidence: float = 0.95) -> int:
    """Smallest number m of independent samples whose range can bracket the q-quantile.

    The upper end is at most the maximum, which lies below the quantile with probability q**m; the
    lower end is at least the minimum, which lies above it with probability (1 − q)**m. Neither
    may exceed (1 − confidence) / 2: 72 samples for a 95 % interval of a p95, 6 for a median.
    """
    return math.ceil(math.log((1 - confidence) / 2) / math.log(max(q, 1 - q)))


def quantile_interval(samples, q: float = 0.95, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval (low, high) for the q-quantile of a stationary, autocorrelated series.

    The ends are order statistics, of fractional rank (Hutson 1999, J. Appl. Stat. 26:343), of as
    many independent samples as the exceedance indicator 1(x > q-quantile) is worth: the number of
    exceedances decides where the quantile lies, and extremes are correlated less than the bulk.
    The tail probability allows for the uncertainty of τ as Student's t does for a variance.

    Raises
    ------
    ValueError
        If the samples, or the indicator, are worth fewer independent ones than
        `minimum_effective_size(q, confidence)`: no such interval can be estimated.
    """
    _check_probability("q", q)
    _check_probability("confidence", confidence)
    samples = _checked(samples)
    needed = minimum_effective_size(q, confidence)
    what = f"the {q:g}-quantile"
    _require(samples.size, correlation_time(samples).tau, needed, what, confidence)
    level = percentile(samples, q)
    # The two differ only where samples tie with the quantile.
    indicators = (samples > level, samples >= level)
    time = max(correlation_time(indicator.astype(float)) for indicator in indicators)
    _require(samples.size, time.tau, needed, what, confidence)
    m = samples.size / time.tau
    tail = stats.norm.sf(stats.t.isf((1 - confidence) / 2, time.freedom))
    ranks = _fractional_rank(m, q, 1 - tail), _fractional_rank(m, q, tail)
    low, high = np.quantile(samples, np.divide(ranks, m + 1), method="weibull")
    return float(low), float(high)


def find_shift(samples) -> Shift:
    """Test a window (n,) of positive latencies for one level shift.

    The test looks at ranks, so that a few outliers neither make nor hide a shift: the largest
    excursion of the cumulated ranks, whose limit is Kolmogorov's distribution (Wilcoxon-type CUSUM;
    Dehling, Fried & Wendler 2020, Biometrika 107:647). Its long-run variance is that of the
    residuals, so that a shift does not hide itself. A series that wanders more slowly than the
    window is long does shift in that window, and is so reported.

    Raises
    ------
    ValueError
        If there are fewer than MIN_SAMPLES_FOR_SHIFT samples or their median is not positive.
    """
    samples = _checked(samples)
    n = samples.size
    level = float(np.median(samples))
    if n < MIN_SAMPLES_FOR_SHIFT:
        raise ValueError(f"find_shift needs {MIN_SAMPLES_FOR_SHIFT} samples or more, got {n}")
    if level <= 0:
        raise ValueError(f"a shift is relative to the median, which must be positive, got {level}")
    index, p_value = best_shift(stats.rankdata(samples) - (n + 1) / 2)
    moved = float(np.median(samples[index:]) - np.median(samples[:index])) / level
    return Shift(index, moved, p_value)


def chance_of_failing(
    samples,
    run_length: int,
    runs: int = 3,
    limit: float = 0.10,
    q: float = 0.95,
    draws: int = 1000,
    seed: int | np.random.Generator = 0,
) -> float:
    """Share of `draws` in which `runs` identical runs fail the spread criterion by chance alone.

    Each draw is a circular block bootstrap of `runs` consecutive runs of `run_length` samples;
    the block length is optimal for the variance of a mean of an AR(1) series of the same τ
    (Carlstein 1986, Ann. Stat. 14:1171; Politis & White 2004, Econom. Rev. 23:53). It assumes that
    the samples are stationary and show all that varies. Otherwise the answer is too low: a change
    between processes, or slower than the samples last, is absent from it, and samples worth 26
    independent ones gave 35 % on average where 54 % was true (simulated).

    Raises
    ------
    ValueError
        If run_length or draws is below 1, runs below 2, or q outside (0, 1).
    """
    _check_probability("q", q)
    for name, value, least in (
        ("run_length", run_length, 1),
        ("runs", runs, 2),
        ("draws", draws, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    samples = _checked(samples)
    generator = np.random.default_rng(seed)
    block = _block_length(samples)
    total = runs * run_length
    failures = 0
    for _ in range(draws):
        starts = generator.integers(samples.size, size=math.ceil(total / block))
        indices = (starts[:, None] + np.arange(block)).ravel()[:total] % samples.size
        drawn = samples[indices].reshape(runs, run_length)
        failures += spread(np.quantile(drawn, q, axis=1, method=PERCENTILE_METHOD)) > limit
    return failures / draws


def _fractional_rank(m: float, q: float, probability: float) -> float:
    """Real rank, from 1 to m, that lies below the q-quantile with the given probability."""

    def excess(rank):
        return special.betainc(rank, m - rank + 1, q) - probability

    if excess(1) <= 0:
        return 1.0
    return m if excess(m) >= 0 else optimize.brentq(excess, 1, m)


def _block_length(samples: np.ndarray) -> int:
    tau = correlation_time(samples).tau
    best = (math.sqrt(6) / 4 * (tau - 1 / tau)) ** (2 / 3) * samples.size ** (1 / 3)
    return min(max(math.ceil(best), 1), samples.size)


def _checked(values, name: str = "samples") -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty")
    if not np.isfinite(array).all():
        index = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"{name} must be finite, got {array[index]} at index {index}")
    return array


def _check_probability(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value}")


def _require(n: int, tau: float, needed: int, what: str, confidence: float) -> None:
    if n / tau < needed:
        raise ValueError(
            f"{n} samples are worth {n / tau:.1f} independent ones here, but a "
            f"{100 * confidence:g} % interval for {what} needs at least {needed}: "
            "measure longer, or find what makes the latencies wander"
        )
