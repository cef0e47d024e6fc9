"""Percentiles, intervals that respect autocorrelation, drift, and the spread of the 10 % criterion.

Latencies measured one after the other are not independent: a slow CPU stays slow for seconds. The
integrated autocorrelation time τ = 1 + 2 Σ ρ(k) says how many samples are worth one independent
sample; every interval below uses n / τ where a textbook formula has n. All functions take the
samples in the order in which they were measured; latencies are in milliseconds.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft, special, stats

PERCENTILE_METHOD = "linear"  # Hyndman & Fan type 7, the default of NumPy and of pandas

MIN_EFFECTIVE_FOR_MEAN = 50
MIN_SAMPLES_FOR_DRIFT = 50


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
class Drift:
    """Whether a window moved, by how much, and how often chance alone would look like this."""

    trend: float  # relative change of the level from the first to the last sample
    trend_p: float
    shift_index: int  # first sample of the second level, where the series splits best
    shift: float  # relative change of the median at that index
    shift_p: float


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
    """How many independent samples would carry as much information: n / τ, between 1 and n."""
    samples = _checked(samples)
    return samples.size / _autocorrelation_time(samples)


def quantile_interval(samples, q: float = 0.95, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval (low, high) for the q-quantile of a stationary, autocorrelated series.

    Raises
    ------
    ValueError
        If the effective sample size is too small for such an interval to exist.
    """
    _check_probability("q", q)
    _check_probability("confidence", confidence)
    samples = _checked(samples)
    needed = minimum_effective_size(q, confidence)
    n_eff = effective_sample_size(samples)
    if n_eff < needed:
        raise ValueError(_too_few(samples.size, n_eff, needed, f"the {q:g}-quantile", confidence))
    above = (samples > percentile(samples, q)).astype(float)
    m = max(samples.size / _autocorrelation_time(above), needed)
    tail = (1 - confidence) / 2
    low, high = _fractional_rank(m, q, 1 - tail), _fractional_rank(m, q, tail)
    low, high = np.quantile(samples, (low / (m + 1), high / (m + 1)), method="weibull")
    return float(low), float(high)


def minimum_effective_size(q: float = 0.95, confidence: float = 0.95) -> int:
    """Smallest number of independent samples that can bracket the q-quantile on both sides."""
    tail = (1 - confidence) / 2
    return math.ceil(math.log(tail) / math.log(max(q, 1 - q)))


def mean_interval(samples, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval (low, high) for the mean of a stationary, autocorrelated series.

    Raises
    ------
    ValueError
        If the effective sample size is below MIN_EFFECTIVE_FOR_MEAN.
    """
    _check_probability("confidence", confidence)
    samples = _checked(samples)
    n_eff = effective_sample_size(samples)
    if n_eff < MIN_EFFECTIVE_FOR_MEAN:
        raise ValueError(
            _too_few(samples.size, n_eff, MIN_EFFECTIVE_FOR_MEAN, "the mean", confidence)
        )
    half = stats.t.ppf((1 + confidence) / 2, n_eff - 1) * samples.std() / math.sqrt(n_eff - 1)
    return float(samples.mean() - half), float(samples.mean() + half)


def find_drift(samples) -> Drift:
    """Test a window (n,) for a trend and for a level shift, allowing for autocorrelation.

    Both tests look at ranks, so that a few outliers neither make nor hide a drift.

    Raises
    ------
    ValueError
        If there are fewer than MIN_SAMPLES_FOR_DRIFT samples.
    """
    samples = _checked(samples)
    n = samples.size
    if n < MIN_SAMPLES_FOR_DRIFT:
        raise ValueError(f"find_drift needs {MIN_SAMPLES_FOR_DRIFT} samples or more, got {n}")
    ranks = stats.rankdata(samples) - (n + 1) / 2
    time = np.arange(n) - (n - 1) / 2
    trend_p = _trend_p_value(ranks, time)
    index, shift_p = _shift_p_value(ranks)
    level = np.median(samples)
    blocks = np.array_split(np.arange(n), min(n, 200))
    centres = [block.mean() for block in blocks]
    slope = stats.theilslopes([np.median(samples[block]) for block in blocks], centres).slope
    change = np.median(samples[index:]) - np.median(samples[:index])
    return Drift(
        trend=float(slope * (n - 1) / level),
        trend_p=trend_p,
        shift_index=index,
        shift=float(change / level),
        shift_p=shift_p,
    )


def chance_of_failing(
    samples,
    run_length: int,
    runs: int = 3,
    limit: float = 0.10,
    q: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> float:
    """How often `runs` identical runs would fail the spread criterion by chance alone."""
    samples = _checked(samples)
    generator = np.random.default_rng(seed)
    block = _block_length(samples)
    total = runs * run_length
    failures = 0
    for _ in range(draws):
        starts = generator.integers(samples.size, size=math.ceil(total / block))
        index = (starts[:, None] + np.arange(block)).ravel()[:total] % samples.size
        drawn = samples[index].reshape(runs, run_length)
        failures += spread(np.quantile(drawn, q, axis=1, method=PERCENTILE_METHOD)) > limit
    return failures / draws


def _autocorrelation_time(series: np.ndarray) -> float:
    """τ by Geyer's initial monotone sequence, between 1 and n; 1 for a constant series."""
    n = series.size
    centred = series - series.mean()
    size = fft.next_fast_len(2 * n, real=True)
    covariance = fft.irfft(np.abs(fft.rfft(centred, size)) ** 2, size)[:n] / n
    if n < 4 or covariance[0] <= 1e-24 * max(1.0, float(series.mean()) ** 2):
        return 1.0
    pairs = covariance[: n - n % 2].reshape(-1, 2).sum(axis=1) / covariance[0]
    ends = np.flatnonzero(pairs <= 0)
    pairs = np.minimum.accumulate(pairs[: ends[0] if ends.size else None])
    return float(np.clip(2 * pairs.sum() - 1, 1, n))


def _fractional_rank(m: float, q: float, probability: float) -> float:
    """Real rank r at which the r-th of m independent samples lies below the q-quantile with
    the given probability (Hutson 1999, fractional order statistics)."""
    low, high = 0.0, m
    for _ in range(60):
        r = (low + high) / 2
        # P(r-th order statistic <= q-quantile) falls as r grows.
        if special.betainc(r, m - r + 1, q) > probability:
            low = r
        else:
            high = r
    return (low + high) / 2


def _trend_p_value(ranks: np.ndarray, time: np.ndarray) -> float:
    slope = ranks @ time / (time @ time)
    residuals = ranks - slope * time
    variance = residuals.var()
    if variance == 0:
        return 1.0 if slope == 0 else 0.0
    freedom = max(ranks.size / _autocorrelation_time(residuals) - 2, 1)
    t = slope * math.sqrt(time.var() * freedom / variance)
    return float(2 * stats.t.sf(abs(t), freedom))


def _shift_p_value(ranks: np.ndarray) -> tuple[int, float]:
    n = ranks.size
    bridge = np.cumsum(ranks)[:-1]
    index = int(np.abs(bridge).argmax()) + 1
    residuals = ranks.copy()
    residuals[:index] -= ranks[:index].mean()
    residuals[index:] -= ranks[index:].mean()
    variance = residuals.var() * _autocorrelation_time(residuals)
    if variance == 0:
        return index, 1.0 if not ranks.any() else 0.0
    return index, float(stats.kstwobign.sf(np.abs(bridge).max() / math.sqrt(n * variance)))


def _block_length(samples: np.ndarray) -> int:
    tau = _autocorrelation_time(samples)
    optimum = (math.sqrt(6) / 4 * (tau - 1 / tau)) ** (2 / 3) * samples.size ** (1 / 3)
    return int(np.clip(math.ceil(optimum), 1, samples.size))


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


def _too_few(n: int, n_eff: float, needed: int, what: str, confidence: float) -> str:
    return (
        f"{n} autocorrelated samples are worth {n_eff:.1f} independent ones; a {confidence:.0%} "
        f"interval for {what} needs at least {needed}: measure longer"
    )
