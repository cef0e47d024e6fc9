"""The script for a machine with two GPUs judges what it is given."""

import pandas as pd
import pytest

pytest.importorskip("distributed", reason="needs Dask: run by `make test-campaign`")

from benchmarks.campaign import two_gpus


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
    return [one["met"] for one in two_gpus.summarise(*alone, {**both, "wall_s": wall_s})]


def test_the_criteria_are_met_and_each_can_fail():
    assert met(measured(0, a=[1.3, 1.31], b=[1.4, 1.39])) == [True] * 4
    assert met(measured(0, a=[1.3, 1.35], b=[1.4, 1.4])) == [False, True, True, True]
    assert met(measured(0, a=[1.3] * 4, b=[1.4])) == [True, True, False, True]
    assert met(measured(0, a=[1.3] * 2, b=[1.4] * 2), wall_s=150.0) == [True, True, True, False]


def test_one_gpu_is_not_enough(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a")
    with pytest.raises(SystemExit, match="two GPUs are needed, 1 found"):
        two_gpus.run(tmp_path, 2, {})
