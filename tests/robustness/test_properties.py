"""Properties that hold whatever comes: of statistics."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers.stats import correlation_time, percentile, quantile_interval, summarise

milliseconds = st.floats(1e-4, 1e5)
series = hnp.arrays(float, st.integers(1, 400), elements=milliseconds)


@settings(deadline=None)
@given(series)
def test_an_interval_holds_its_estimate_or_is_refused_with_its_reason(samples):
    assert 1 <= correlation_time(samples).tau <= samples.size
    try:
        low, high = quantile_interval(samples)
    except ValueError as error:
        assert "independent" in str(error)  # noqa: PT017 - both outcomes are right
    else:
        assert samples.min() <= low <= percentile(samples, 0.95) * (1 + 1e-9)
        assert percentile(samples, 0.95) * (1 - 1e-9) <= high <= samples.max()


@given(series, st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 400))
def test_one_value_that_is_no_number_is_found_and_placed(samples, value, index):
    samples[index := index % samples.size] = value
    for function in (summarise, quantile_interval, lambda x: percentile(x, 0.5)):
        with pytest.raises(ValueError, match=rf"{value} at index {index}"):
            function(samples)
