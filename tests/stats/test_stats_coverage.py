"""What a run's intervals, their refusals and the shift test reach in simulation (fixed seeds).

`pytest --runslow tests/stats -s` prints the figures; 5,000 series leave ± 0.6 points of coverage.
"""

import math

import numpy as np
import pytest
from simulated_series import BIMODAL_P95, NORMAL_P95, ar1, bimodal, lognormal, normal

from helpers.stats import find_shift, quantile_interval

pytestmark = pytest.mark.slow
REPLICATES = 5000
SERIES = {  # series, its p95
    "normal": (normal, NORMAL_P95),
    "log-normal": (lognormal, math.exp(NORMAL_P95)),
    "bimodal": (bimodal, BIMODAL_P95),
    "AR(1) 0.5": (ar1(0.5), NORMAL_P95),
    "AR(1) 0.9": (ar1(0.9), NORMAL_P95),
}
STRONG = "AR(1) 0.9"  # refusals are legitimate
CELLS = [(name, n) for name in SERIES for n in (500, 5000)]


@pytest.mark.parametrize(("name", "n"), CELLS)
def test_intervals_cover(name, n):
    series, p95 = SERIES[name]
    generator, hits = np.random.default_rng([n, *name.encode()]), []
    for _ in range(REPLICATES):
        try:
            low, high = quantile_interval(series(generator, n))
        except ValueError:
            continue
        hits.append(low <= p95 <= high)
    given = len(hits)
    print(f"\n{name}, n={n}: covered {np.mean(hits or 0):.1%}, given {given / REPLICATES:.2%}")
    assert name == STRONG or given >= 0.95 * REPLICATES
    if given >= 50:
        assert 0.92 <= np.mean(hits) <= 0.985


@pytest.mark.parametrize("n", [500, 5000])
@pytest.mark.parametrize("name", ["normal", "AR(1) 0.5", "AR(1) 0.9"])
def test_shift_alarms_and_power(name, n):
    """Log-normal latencies, median 1, standard deviation 5 %: as large as the shift sought."""
    generator = np.random.default_rng([n, *name.encode()])
    latencies = [np.exp(0.05 * SERIES[name][0](generator, n)) for _ in range(2000)]
    step = 1 + 0.05 * (np.arange(n) >= 0.6 * n)
    alarms = np.mean([find_shift(still).p_value < 0.05 for still in latencies])
    shifts = [find_shift(still * step) for still in latencies[:500]]
    found = [shift.relative for shift in shifts if shift.p_value < 0.05]
    print(f"\n{name}, n={n}: alarms {alarms:.1%}, found {len(found) / 500:.1%}")
    if name != STRONG:
        assert alarms <= 0.07
        assert len(found) >= 0.8 * 500
    if n == 5000:
        assert np.median(found) == pytest.approx(0.05, abs=0.01)
