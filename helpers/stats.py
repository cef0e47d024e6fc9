"""Percentiles, the 10 % criterion's spread, intervals of one run's samples and over processes.

A slow CPU stays slow for seconds: the integrated autocorrelation time τ = 1 + 2 Σ ρ(k) says how
many latencies in a row are worth one independent sample; `quantile_interval` and `find_shift` use
n / τ where a textbook formula has n. `replicate_interval`, `further_interval` and `welch_interval`
take one figure per process. Samples (n,) come in the order of measurement, in ms.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import fft, optimize, special, stats

MIN_SAMPLES_FOR_SHIFT = 50
MIN_SAMPLES_FOR_P95 = 20  # of fewer it is their maximum, or interpolated next to it


@dataclass(frozen=True)
class LatencySummary:
    """All samples of one clock in one run, and the figures derived from them (ms)."""

    samples_ms: np.ndarray  # (n,) float64, read-only, in the order of measurement
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
    """Where a window splits best into two levels, and by how much; judge by both figures."""

    index: int  # first sample of the second level
    relative: float  # median from there on minus the median before, over the median of all
    p_value: float  # how often a stationary series would seem to shift as much


class CorrelationTime(NamedTuple):
    tau: float  # samples per independent sample, from 1 to n
    freedom: float  # degrees of freedom of that estimate


def summarise(samples_ms) -> LatencySummary:
    """Summarise latencies (n,) in ms; ValueError if there are none, or one is NaN or negative."""
    samples = _checked(samples_ms).copy()
    if samples.min() < 0:
        raise ValueError(f"a latency is negative: {samples.min()} ms at {samples.argmin()}")
    samples.flags.writeable = False
    std = float(samples.std(ddof=1)) if samples.size > 1 else 0.0
    figures = samples.mean(), *np.quantile(samples, (0.50, 0.95)), std, samples.min(), samples.max()
    return LatencySummary(samples, *map(float, figures))


def percentile(samples, q: float) -> float:
    """The q-quantile, 0 <= q <= 1, of samples (n,): q = 0.95 gives the p95."""
    return float(np.quantile(_checked(samples), q))  # type 7, as pandas has it


def spread(values) -> float:
    """(max − min) / mean of two values or more, of a positive mean (ValueError else)."""
    values = _checked(values)
    mean = values.mean()
    if values.size < 2 or mean <= 0:
        raise ValueError(f"a spread needs two values or more, of a positive mean, got {values}")
    return float((values.max() - values.min()) / mean)


def replicate_interval(values, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval for the level (geometric mean) of one figure per process.

    Student's t on the logarithms. Raises ValueError unless there are 3 or more, finite and > 0.
    """
    logs = _logs(values, least=3)
    return _around(logs.mean(), logs.var(ddof=1) / logs.size, logs.size - 1, confidence)


def further_interval(
    values, confidence: float = 0.95, known_sd: float = 0.0, known_freedom: float = 0.0
) -> tuple[float, float]:
    """Where the level of a further session of as many processes lands: √2 times as wide.

    `known_sd`: standard deviation of the logarithms between processes that is known from elsewhere,
    with so many degrees of freedom: pooled with the values' own (moderated t: Smyth 2004, Stat.
    Appl. Genet. Mol. Biol. 3:3), since three processes may all fall on one of several levels.
    """
    logs = _logs(values, least=3)
    own = logs.size - 1
    freedom = own + known_freedom
    variance = (own * logs.var(ddof=1) + known_freedom * known_sd**2) / freedom
    return _around(logs.mean(), 2 * variance / logs.size, freedom, confidence)


def welch_interval(a, b, confidence: float = 0.95) -> tuple[float, float, float]:
    """Ratio of the level of `b` to that of `a`, and its confidence interval: (ratio, low, high).

    One figure per process; Welch's t on the logarithms, since their variances may differ. Raises
    ValueError unless both hold two or more, finite and > 0.
    """
    before, after = _logs(a, least=2), _logs(b, least=2)
    parts = [logs.var(ddof=1) / logs.size for logs in (before, after)]
    variance, difference = sum(parts), after.mean() - before.mean()
    halves = parts[0] ** 2 / (before.size - 1) + parts[1] ** 2 / (after.size - 1)
    freedom = variance**2 / halves if variance else 1.0  # Welch & Satterthwaite
    return float(np.exp(difference)), *_around(difference, variance, freedom, confidence)


def _around(centre: float, variance: float, freedom: float, confidence: float):
    half = stats.t.isf((1 - confidence) / 2, freedom) * math.sqrt(variance)
    return float(np.exp(centre - half)), float(np.exp(centre + half))


def _logs(values, least: int) -> np.ndarray:
    values = _checked(values)
    if values.size < least or values.min() <= 0:
        raise ValueError(f"{least} figures or more are needed, all above 0, got {values}")
    return np.log(values)


def quantile_interval(samples, q: float = 0.95, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval (low, high) for the q-quantile of a stationary, autocorrelated series.

    The ends are order statistics, of fractional rank (Hutson 1999, J. Appl. Stat. 26:343), of as
    many independent samples as the exceedance indicator 1(x > q-quantile) is worth: the number of
    exceedances decides where the quantile lies. The tail probability allows for the uncertainty of
    τ as Student's t does for a variance. Raises ValueError if the samples, or the indicator, are
    worth fewer than it takes to bracket the quantile: 72 for a p95, 6 for a median, at 95 %.
    """
    samples, level = _checked(samples), percentile(samples, q)
    needed = math.ceil(math.log((1 - confidence) / 2) / math.log(max(q, 1 - q)))
    # The two indicators differ only where samples tie with the quantile.
    indicators = (samples > level).astype(float), (samples >= level).astype(float)
    time = max(map(correlation_time, indicators))
    m = samples.size / time.tau
    worth = min(samples.size / correlation_time(samples).tau, m)
    if worth < needed:
        told = f"{samples.size} samples are worth {worth:.1f} independent ones, an interval for the"
        raise ValueError(f"{told} {q:g}-quantile needs {needed}: measure longer")
    tail = stats.norm.sf(stats.t.isf((1 - confidence) / 2, time.freedom))
    ranks = _fractional_rank(m, q, 1 - tail), _fractional_rank(m, q, tail)
    low, high = np.quantile(samples, np.divide(ranks, m + 1), method="weibull")
    return float(low), float(high)


def _fractional_rank(m: float, q: float, probability: float) -> float:
    """Real rank, from 1 to m, that lies below the q-quantile with the given probability."""

    def excess(rank):
        return special.betainc(rank, m - rank + 1, q) - probability

    if excess(1) <= 0:
        return 1.0
    return m if excess(m) >= 0 else optimize.brentq(excess, 1, m)


def correlation_time(series: np.ndarray, fitted: int = 1) -> CorrelationTime:
    """Integrated autocorrelation time of a series (n,) from which `fitted` terms are removed.

    Geyer's initial monotone sequence (1992, Stat. Sci. 7:473) over 2 L + 1 lags, divided by
    1 − fitted (2 L + 1) / n, since removing a term makes each autocovariance too small. About
    n / (2 L + 1) degrees of freedom (Priestley 1981, §6.2). At most n: correlated from end to end.
    """
    n, centred = series.size, series - series.mean()
    # Rounding makes a constant series vary by some 1e-16 of its level.
    if n < 4 or np.abs(centred).max() <= 1e-12 * np.abs(series).max():
        return CorrelationTime(1.0, n)
    size = fft.next_fast_len(2 * n, real=True)
    covariance = fft.irfft(np.abs(fft.rfft(centred, size)) ** 2, size)[:n]
    pairs = covariance[: n - n % 2].reshape(-1, 2).sum(axis=1) / covariance[0]
    negative = np.flatnonzero(pairs <= 0)
    pairs = np.minimum.accumulate(pairs[: negative[0] if negative.size else None])
    used = (4 * pairs.size - 1) / n
    tau = (2 * pairs.sum() - 1) / max(1 - fitted * used, 1 / n)
    return CorrelationTime(float(np.clip(tau, 1, n)), 1 / used)


def find_shift(samples) -> Shift:
    """Test a window (n,) of positive latencies for one level shift.

    By ranks, so that outliers neither make nor hide one: the largest excursion of the cumulated
    ranks, whose limit is Kolmogorov's distribution (Dehling, Fried & Wendler 2020, Biometrika
    107:647), by the long-run variance of the residuals. A slow wandering is reported as a shift.
    Raises ValueError unless n >= MIN_SAMPLES_FOR_SHIFT and the median is positive.
    """
    samples = _checked(samples)
    n, level = samples.size, float(np.median(samples))
    if n < MIN_SAMPLES_FOR_SHIFT or level <= 0:
        raise ValueError(f"{n} samples of median {level} are too few, or not above 0")
    ranks = stats.rankdata(samples) - (n + 1) / 2
    index = 1 + int((sums := np.abs(np.cumsum(ranks)[:-1])).argmax())
    residuals = np.concatenate([part - part.mean() for part in np.split(ranks, [index])])
    if residuals.any():
        variance = residuals.var() * correlation_time(residuals, fitted=2).tau
        p_value = float(stats.kstwobign.sf(sums.max() / math.sqrt(n * variance)))
    else:
        p_value = 0.0 if ranks.any() else 1.0
    moved = float(np.median(samples[index:]) - np.median(samples[:index])) / level
    return Shift(index, moved, p_value)


def chance_of_failing(
    samples, run_length: int, runs: int = 3, limit: float = 0.10, draws: int = 1000, seed=0
) -> float:
    """Share of `draws` in which the p95 of `runs` identical runs spread by more than `limit`.

    Each draw is a circular block bootstrap of `runs` runs of `run_length` samples (block length:
    Carlstein 1986, Ann. Stat. 14:1171; Politis & White 2004, Econom. Rev. 23:53). The answer is too
    low where the samples do not show all that varies, as what differs between processes.
    """
    samples, generator = _checked(samples), np.random.default_rng(seed)
    tau = correlation_time(samples).tau
    best = (math.sqrt(6) / 4 * (tau - 1 / tau)) ** (2 / 3) * samples.size ** (1 / 3)
    block = min(max(math.ceil(best), 1), samples.size)
    total, failures = runs * run_length, 0
    for _ in range(draws):
        starts = generator.integers(samples.size, size=math.ceil(total / block))
        indices = (starts[:, None] + np.arange(block)).ravel()[:total] % samples.size
        drawn = samples[indices].reshape(runs, run_length)
        failures += spread(np.quantile(drawn, 0.95, axis=1)) > limit
    return failures / draws


def _checked(values) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"one value or more in one dimension is needed, got shape {array.shape}")
    for index in np.flatnonzero(~np.isfinite(array)):
        raise ValueError(f"values must be finite, got {array[index]} at index {index}")
    return array
