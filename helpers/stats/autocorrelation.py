"""Autocorrelation time of a series, and a rank test for a shift that allows for autocorrelation.

The integrated autocorrelation time τ = 1 + 2 Σ ρ(k) says how many samples in a row are worth one
independent sample. `helpers.stats` builds its intervals and `find_shift` on it.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import fft, stats


class CorrelationTime(NamedTuple):
    tau: float  # samples per independent sample, from 1 to n
    freedom: float  # degrees of freedom of that estimate


def correlation_time(series: np.ndarray, fitted: int = 1) -> CorrelationTime:
    """Integrated autocorrelation time of a series (n,) from which `fitted` terms are removed.

    Geyer's initial monotone sequence (1992, Stat. Sci. 7:473) over 2 L + 1 lags. Removing a term
    makes each autocovariance too small by the variance of the mean, hence the division by
    1 − fitted (2 L + 1) / n; a truncated periodogram has about n / (2 L + 1) degrees of freedom
    (Priestley 1981, §6.2). A window that is correlated from end to end is one sample: τ = n.
    """
    n = series.size
    centred = series - series.mean()
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


def best_shift(ranks: np.ndarray) -> tuple[int, float]:
    """Best split of centred ranks (n,), and its p-value."""
    sums = np.abs(np.cumsum(ranks)[:-1])
    index = int(sums.argmax()) + 1
    residuals = np.concatenate([part - part.mean() for part in np.split(ranks, [index])])
    if not residuals.any():
        return index, 0.0 if ranks.any() else 1.0
    variance = residuals.var() * correlation_time(residuals, fitted=2).tau
    return index, float(stats.kstwobign.sf(sums.max() / math.sqrt(ranks.size * variance)))
