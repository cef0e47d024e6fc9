"""Devices are compared by sessions, within one protocol, with an interval and a verdict."""

import json

import numpy as np
import pandas as pd
import pytest

from helpers.after.campaign.comparison import compare
from tests.disk_session import row_of

ROW = row_of([1.0] * 20, [1.0] * 20)


def rows_of(uuid, p95, **changes):
    """Merged rows of one device: a session per value, three runs each around it."""
    told = {"set": 1, "gpu_uuid": uuid, "host": "n", "cpu": "a CPU", "torch_threads": 16}
    told |= {"parameters": json.dumps({"seed": 0})}
    return [
        ROW | told | {"session": f"{uuid}-{number}", "lat_p95": value * (1 + 0.001 * (run - 2))}
        | changes
        for number, value in enumerate(p95)
        for run in (1, 2, 3)
    ]  # fmt: skip


def sessions(level, n=8, seed=0):
    return level * (1 + 0.005 * np.random.default_rng(seed).standard_normal(n))


def test_a_difference_is_shown_with_its_interval():
    rows = rows_of("GPU-a", sessions(1.3)) + rows_of("GPU-b", sessions(1.43, seed=1))
    reference, other = compare(pd.DataFrame(rows)).itertuples()
    assert reference.p95_ms == pytest.approx(np.median(sessions(1.3)))  # once, by its runs' median
    assert np.isnan(reference.ratio)
    assert other.low < 1.1 < other.high < other.low + 0.03


@pytest.mark.parametrize(
    ("of_both", "of_other", "n", "compared"),
    [
        *[({}, {name: "other"}, 8, False) for name in ("torch_version", "dataset")],
        *[({}, {"set": 9}, 8, False), ({}, {"clock": "host"}, 8, False), ({}, {}, 2, False)],
        ({"clock": "gpu"}, {"torch_threads": 1}, 8, True),  # they matter to the host alone
        ({"clock": "host"}, {"torch_threads": 1}, 8, False),
    ],
)
def test_only_enough_sessions_of_one_protocol_are_compared(of_both, of_other, n, compared):
    rows = rows_of("GPU-a", sessions(1.3), **of_both)
    rows += rows_of("GPU-b", sessions(1.5, n), **of_both | of_other)
    assert compare(pd.DataFrame(rows))["ratio"].notna().tolist() == [False, compared]


def test_the_table_names_what_varies():
    rows = rows_of("GPU-a", sessions(1.3)) + rows_of("GPU-b", sessions(1.43, 5))
    seed = {"parameters": json.dumps({"seed": 1}), "gpu_name": "", "clock": "host"}
    devices = compare(pd.DataFrame([*rows, *rows_of("", [1.3], set=2, **seed)]))
    assert devices["settings"].tolist() == ["seed = 0", "seed = 0", "seed = 1"]
    assert devices["sessions"].tolist() == [8, 5, 1]
    assert devices["device"][2] == "a CPU (n)"  # a processor is named by its host
