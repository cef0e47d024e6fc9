"""The figures of repeatability show every process of the data and say what they found."""

import numpy as np
import pytest

from benchmarks.repeatability.figures import (
    french,
    plot_repeatability,
    plot_side_by_side,
    read,
    spreads_of,
)


@pytest.mark.parametrize(
    ("plot", "part", "table", "rows"),
    [
        (plot_repeatability, "processes", "repeatability", 2),
        (plot_side_by_side, "methods", "side_by_side", 6),
    ],
)
def test_every_process_is_drawn_and_every_row_told(plot, part, table, rows):
    values = read(part, table)
    assert len(values) == rows
    figure = plot(values)
    drawn = [line.get_xdata() for line in figure.axes[0].lines if line.get_marker() == "o"]
    found = sorted((spreads_of(one) for one in values.values()), key=np.median)
    for shown, expected in zip(drawn, found, strict=True):
        np.testing.assert_allclose(shown, expected)
    assert all(french(name) in figure.get_label() for name in values)
