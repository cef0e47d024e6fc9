"""Properties that hold whatever comes: of statistics, of samples on disk, of names."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from result_rows import opened

from helpers.parameters import ParameterError, validate
from helpers.stats import (
    correlation_time,
    find_shift,
    percentile,
    quantile_interval,
    spread,
    summarise,
)

milliseconds = st.floats(1e-4, 1e5)
series = hnp.arrays(float, st.integers(1, 400), elements=milliseconds)
several = hnp.arrays(float, st.integers(2, 8), elements=milliseconds)
broken = st.sampled_from([math.nan, math.inf, -math.inf])


@given(series, st.floats(0.001, 0.999))
def test_a_percentile_is_the_interpolated_order_statistic(samples, q):
    """Hyndman & Fan's type 7, written out."""
    ordered, rank = np.sort(samples), q * (samples.size - 1)
    low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    assert percentile(samples, q) == pytest.approx(low + (rank % 1) * (high - low), rel=1e-9)


@given(series, st.floats(0.001, 0.998), st.floats(0.0001, 0.001))
def test_a_percentile_grows_with_q(samples, q, step):
    assert percentile(samples, q) <= percentile(samples, q + step) * (1 + 1e-12)


@given(several, st.floats(0.01, 100))
def test_a_spread_is_free_of_the_unit_and_of_the_order(values, factor):
    assert spread(values) == pytest.approx(spread(values[::-1] * factor), rel=1e-9, abs=1e-12)
    assert 0 <= spread(values) < values.size


@given(series)
def test_an_effective_size_lies_between_one_and_n(samples):
    assert 1 <= correlation_time(samples).tau <= samples.size


@settings(deadline=None)
@given(series)
def test_an_interval_holds_its_estimate_or_is_refused_with_its_reason(samples):
    try:
        low, high = quantile_interval(samples)
    except ValueError as error:
        assert "independent" in str(error)  # noqa: PT017 - both outcomes are right
        assert "measure longer" in str(error)  # noqa: PT017
    else:
        assert samples.min() <= low <= percentile(samples, 0.95) * (1 + 1e-9)
        assert percentile(samples, 0.95) * (1 - 1e-9) <= high <= samples.max()


@settings(deadline=None)
@given(hnp.arrays(float, st.integers(50, 300), elements=milliseconds))
def test_a_shift_is_finite_and_its_p_value_is_a_probability(samples):
    shift = find_shift(samples)
    assert math.isfinite(shift.relative)
    assert 0 <= shift.p_value <= 1
    assert 0 < shift.index < samples.size


@given(series, broken, st.integers(0, 400))
def test_one_value_that_is_no_number_is_found_and_placed(samples, value, index):
    samples[index := index % samples.size] = value
    for function in (summarise, quantile_interval, lambda x: percentile(x, 0.5)):
        with pytest.raises(ValueError, match=rf"must be finite, got {value} at index {index}"):
            function(samples)


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=12) | st.text("./\\a-_ 0", max_size=8))
def test_a_session_name_is_one_plain_folder_or_refused(name):
    with tempfile.TemporaryDirectory() as folder:
        try:
            validate(session=name)
        except ParameterError:
            return
        session = opened(Path(folder) / "results", name)
        assert session.folder.parent == Path(folder) / "results"
        assert session.name == name or not name
