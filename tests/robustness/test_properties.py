"""Properties that hold whatever comes: of statistics, of names."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from result_rows import opened

from helpers.parameters import ParameterError
from helpers.stats import correlation_time, percentile, quantile_interval, summarise

milliseconds = st.floats(1e-4, 1e5)
series = hnp.arrays(float, st.integers(1, 400), elements=milliseconds)


@given(series, st.floats(0.001, 0.998), st.floats(0.0001, 0.001))
def test_a_percentile_is_the_interpolated_order_statistic_and_grows(samples, q, step):
    """Hyndman & Fan's type 7, written out."""
    ordered, rank = np.sort(samples), q * (samples.size - 1)
    low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    assert percentile(samples, q) == pytest.approx(low + (rank % 1) * (high - low), rel=1e-9)
    assert percentile(samples, q) <= percentile(samples, q + step) * (1 + 1e-12)


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


HOSTILE = ["..", "../x", "a/../../b", "/etc/passwd", "a\\b", "C:\\x", "~", "a\0", "a\n", " "]
names = st.sampled_from(HOSTILE) | st.text(max_size=12) | st.text("./\\a-_ 0", max_size=8)


@settings(deadline=None, max_examples=150)
@given(names)
def test_a_session_name_is_one_plain_folder_or_refused(name):
    with tempfile.TemporaryDirectory() as folder:
        results_dir = Path(folder) / "results"
        try:
            session = opened(results_dir, name)
        except ParameterError:
            assert list(Path(folder).iterdir()) == []
        else:
            assert session.folder.parent == results_dir
            assert session.name == name or not name
