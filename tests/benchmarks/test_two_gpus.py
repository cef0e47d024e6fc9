"""The script for a machine with two GPUs: what it says of the rows it is given."""

import pandas as pd
import pytest

pytest.importorskip("distributed", reason="needs Dask: run by `make test-campaign`")

from benchmarks.campaign import two_gpus


def measured(**p95_of):
    """Sessions of a minute on each GPU, one after the other, with these p95 (ms)."""
    rows = [
        {
            **{"gpu_uuid": f"GPU-{gpu}", "session": f"{gpu}{index}", "gpu_p95": value},
            **{"started_s": 60.0 * index, "finished_s": 60.0 * index + 55},
        }
        for gpu, values in p95_of.items()
        for index, value in enumerate(values)
    ]
    return pd.DataFrame(rows), 100.0


def test_figures_of_each_gpu_and_of_the_time_together():
    both = measured(a=[1.3, 1.31], b=[1.4])
    found = two_gpus.summarise(measured(a=[1.2] * 4), measured(b=[1.5]), both)
    assert [gpu["both_ms"] for gpu in found["gpus"]] == [[1.3, 1.31], [1.4]]
    assert [gpu["alone_ms"] for gpu in found["gpus"]] == [[1.2] * 4, [1.5]]
    assert found["overlap"] == pytest.approx(55 / 115)
