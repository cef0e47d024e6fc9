"""Devices are compared by sessions, within one protocol, with an interval and a verdict."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from helpers.after.campaign.comparison import compare, comparison_table, verdict
from helpers.after.campaign.plot import MOST_PANELS, plot_campaign
from tests.campaign.stand_in import row
from tests.test_plots import png_of


def rows_of(uuid, p95, **changes):
    """Merged rows of one device: a session per value, three runs each around it."""
    return [
        {
            **row(f"{uuid}-{index}", run, value * (1 + 0.001 * (run - 2))),
            **{"set": 1, "gpu_uuid": uuid, "host": "n", "cpu": "a CPU", "torch_threads": 16},
            **{"started_s": index, "host_shared": False, "parameters": json.dumps({"seed": 0})},
            **changes,
        }
        for index, value in enumerate(p95)
        for run in (1, 2, 3)
    ]


def sessions(level, n=8, relative=0.005, seed=0):
    return level * (1 + relative * np.random.default_rng(seed).standard_normal(n))


def told(rows):
    devices = compare(rows)
    return [verdict(device, devices) for device in devices]


def test_a_session_counts_once_by_its_runs_median():
    (device,) = compare(rows_of("GPU-a", [1.0, 1.1, 1.2]))
    np.testing.assert_allclose(device.p95_ms, [1.0, 1.1, 1.2])


def test_a_difference_is_shown_with_its_interval():
    rows = rows_of("GPU-a", sessions(1.3)) + rows_of("GPU-b", sessions(1.3 * 1.1, seed=1))
    reference, other = compare(rows)
    assert reference.ratio is None
    assert other.low < 1.1 < other.high
    assert other.high - other.low < 0.03
    assert other.differs
    assert told(rows)[0] == "référence"
    assert told(rows)[1].endswith("plus lent")


def test_equal_devices_are_said_equal_up_to_a_bound():
    rows = rows_of("GPU-a", sessions(1.3)) + rows_of("GPU-b", sessions(1.3, seed=1))
    assert told(rows)[1].startswith("pas de différence montrée ; au plus")


def test_equal_devices_seldom_seem_to_differ():
    wrong = 0
    for seed in range(100):
        names = "abcd"
        rows = [
            one
            for place, name in enumerate(names)
            for one in rows_of(f"GPU-{name}", sessions(1.3, 5, seed=1000 * place + seed))
        ]
        wrong += any(device.differs for device in compare(rows))
    assert wrong <= 10  # 5 % expected of all three comparisons together


def test_too_few_sessions_give_no_ratio():
    rows = rows_of("GPU-a", sessions(1.3)) + rows_of("GPU-b", [1.5, 1.6])
    assert told(rows)[1] == "trop peu de sessions (il en faut 3 par appareil)"


def test_sessions_without_any_spread_are_compared_all_the_same():
    rows = rows_of("GPU-a", [1.0] * 3) + rows_of("GPU-b", [2.0] * 3)
    assert compare(rows)[1].ratio == pytest.approx(2)


@pytest.mark.parametrize("column", ["torch_version", "measure_iters", "clock", "set", "dataset"])
def test_another_protocol_is_not_compared(column):
    other = {"clock": "host", "set": 2, "measure_iters": 9}.get(column, "other")
    rows = rows_of("GPU-a", sessions(1.3)) + rows_of("GPU-b", sessions(1.5), **{column: other})
    assert set(told(rows)) == {"seul appareil de ce protocole : rien à comparer"}


def test_torchs_threads_matter_to_the_host_clock_alone():
    def compared(clock):
        one = rows_of("GPU-a", sessions(1.3), clock=clock)
        two = rows_of("GPU-b", sessions(1.5), clock=clock, torch_threads=1)
        return any(device.ratio for device in compare(one + two))

    assert compared("gpu")
    assert not compared("host")


def test_the_table_names_what_varies_and_who_shared_its_host():
    rows = rows_of("GPU-a", sessions(1.3), host_shared=True)
    rows += rows_of("GPU-b", sessions(1.4), set=2, parameters=json.dumps({"seed": 1}))
    table = comparison_table(compare(rows)).reset_index()
    assert table["Réglages"].tolist() == ["seed = 0", "seed = 1"]
    assert table["dont à hôte partagé"].tolist() == ["8", "0"]
    assert table["p95 médian (ms)"][1].startswith("1,")
    assert comparison_table([]).empty


def test_a_processor_is_named_by_its_host():
    (device,) = compare(rows_of("", sessions(9.0), gpu_name="", clock="host"))
    assert device.name == "a CPU (n)"


def test_the_figure_shows_every_session_and_says_the_verdicts():
    rows = rows_of("GPU-a", sessions(1.3)) + rows_of("GPU-b", sessions(1.43, 5))
    figure = plot_campaign(compare(rows))
    (axis,) = figure.axes
    dots = [line.get_xdata() for line in axis.lines if line.get_marker() == "o"]
    assert [values.size for values in dots] == [8, 5]
    assert figure.get_suptitle() == "2 appareils, 13 sessions"
    assert "plus lent" in figure.get_label()
    with Image.open(io.BytesIO(png_of(figure))) as image:
        assert image.width > 800


def test_a_large_campaigns_figure_says_how_much_of_it_is_drawn():
    rows = [
        one
        for number in range(MOST_PANELS + 3)
        for one in rows_of(f"GPU-{number}", [1.3], set=number)
    ]
    figure = plot_campaign(compare(rows))
    assert len(figure.axes) == MOST_PANELS
    assert f"{MOST_PANELS} protocoles dessinés sur {MOST_PANELS + 3}" in figure.get_suptitle()


def test_no_sessions_no_figure():
    with pytest.raises(ValueError, match="no sessions to plot"):
        plot_campaign([])
