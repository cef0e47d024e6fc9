"""Series with known quantiles, on which intervals and drift tests are judged."""

import math

import numpy as np
from scipy import optimize, signal, stats

NORMAL_P95 = float(stats.norm.ppf(0.95))
BIMODAL = ((0.94, 1.0, 0.02), (0.06, 2.0, 0.05))  # weight, mean, standard deviation
BIMODAL_P95 = float(
    optimize.brentq(lambda x: sum(w * stats.norm.cdf(x, m, s) for w, m, s in BIMODAL) - 0.95, 1, 2)
)


def normal(generator, n):
    return generator.normal(size=n)


def lognormal(generator, n):
    return generator.lognormal(size=n)


def bimodal(generator, n):
    """Independent samples, 94 % fast and 6 % slow: p95 lies at the foot of the slow mode."""
    modes = generator.choice(len(BIMODAL), size=n, p=[weight for weight, _, _ in BIMODAL])
    return generator.normal(*np.array(BIMODAL)[modes, 1:].T)


def ar1(rho):
    """Generator of stationary AR(1) series of unit variance."""

    def series(generator, n):
        noise = math.sqrt(1 - rho**2) * generator.normal(size=n)
        return signal.lfilter([1], [1, -rho], noise, zi=[rho * generator.normal()])[0]

    return series
