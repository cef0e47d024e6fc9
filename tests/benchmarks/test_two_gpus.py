"""The script for a machine with two GPUs judges what it is given, and runs (with a stand-in)."""

import json

import pandas as pd
import pytest

from tests.campaign.stand_in import write_notebook

pytest.importorskip("distributed", reason="needs Dask: run by `make test-campaign`")

from tests.gpu import campaign


def measured(wall_s, **p95_of):
    """Sessions of a minute on each GPU, one after the other, with these p95 (ms)."""
    rows = [
        {
            **{"gpu_uuid": f"GPU-{gpu}", "session": f"{gpu}{index}", "gpu_p95": value},
            **{"started_s": 60.0 * index, "finished_s": 60.0 * index + 55},
        }
        for gpu, values in p95_of.items()
        for index, value in enumerate(values)
    ]
    return {"rows": pd.DataFrame(rows), "wall_s": wall_s}


def met(both, wall_s=130.0):
    alone = measured(240.0, a=[1.3] * 4), measured(120.0, b=[1.4] * 2)
    return [one["met"] for one in campaign.summarise(*alone, {**both, "wall_s": wall_s})]


def test_the_criteria_are_met_and_each_can_fail():
    assert met(measured(0, a=[1.3, 1.31], b=[1.4, 1.39])) == [True] * 4
    assert met(measured(0, a=[1.3, 1.35], b=[1.4, 1.4])) == [False, True, True, True]
    assert met(measured(0, a=[1.3] * 4, b=[1.4])) == [True, True, False, True]
    assert met(measured(0, a=[1.3] * 2, b=[1.4] * 2), wall_s=150.0) == [True, True, True, False]


@pytest.mark.parametrize(
    ("left_s", "session_s", "sessions"), [(200, 24, 4), (95, 24, 2), (10, 24, 2), (9000, 1, 12)]
)
def test_as_many_sessions_as_fit(left_s, session_s, sessions):
    assert campaign.how_many(left_s, session_s) == sessions


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    monkeypatch.setattr(campaign, "IMPORTS", "")
    monkeypatch.setattr(campaign, "SESSIONS", (2, 2))
    plan = {"notebook": str(write_notebook(tmp_path / "stand_in.ipynb"))}
    found = campaign.run(tmp_path / "out", 0, plan)
    assert [one["met"] for one in found[:2]] == [True, True]  # the stand-in's p95 never moves
    assert json.loads((tmp_path / "out" / "campaign.json").read_text()) == found


def test_one_gpu_is_not_enough(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    with pytest.raises(SystemExit, match="two GPUs are needed, 1 found"):
        campaign.run(tmp_path, 0, {})
