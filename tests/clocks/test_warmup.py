import itertools

import numpy as np
import pytest
import torch
from fakes import TinyNet

from helpers.clocks import warmup
from helpers.clocks.warmup import WARMUP_MAX_ITERS, WARMUP_WINDOW, warm_up

CPU = torch.device("cpu")
INPUTS = [torch.zeros(1, 3, 8, 8)]


def with_series(monkeypatch, latencies_ms, clocks_mhz):
    """Let each window read the next latency, and the SM clock after it the next frequency."""
    latencies, clocks = iter(latencies_ms), iter(clocks_mhz)
    monkeypatch.setattr(warmup, "host_latencies", lambda m, x, n, d: np.full(n, next(latencies)))
    monkeypatch.setattr(warmup, "sm_clock_mhz", lambda handle: next(clocks))


def test_it_runs_the_model_and_keeps_every_latency():
    with torch.inference_mode():
        done = warm_up(TinyNet().eval(), INPUTS, 60, CPU)
    assert 60 <= len(done.samples_ms) <= WARMUP_MAX_ITERS
    assert (done.samples_ms > 0).all()


def test_it_goes_on_until_latencies_agree(monkeypatch):
    with_series(monkeypatch, [9, 5, 3, 2, 2, 2], itertools.repeat(None))
    done = warm_up(TinyNet(), INPUTS, 50, CPU)
    assert done.steady
    assert len(done.samples_ms) == 5 * WARMUP_WINDOW


def test_it_waits_for_the_sm_clock(monkeypatch):
    with_series(monkeypatch, itertools.repeat(2.0), [345, 800, 1400, 1700, 1950, 1980])
    done = warm_up(TinyNet(), INPUTS, 50, CPU)
    assert done.steady
    assert len(done.samples_ms) == 6 * WARMUP_WINDOW  # 1950 and 1980 agree


@pytest.mark.parametrize(
    ("latencies_ms", "clocks_mhz"),
    [
        ((x * x for x in itertools.count(1)), itertools.repeat(1980)),
        (itertools.repeat(2.0), itertools.cycle([1980, 1200])),
    ],
    ids=["latencies", "SM clock"],
)
def test_what_never_settles_is_bounded_and_said(monkeypatch, latencies_ms, clocks_mhz):
    with_series(monkeypatch, latencies_ms, clocks_mhz)
    done = warm_up(TinyNet(), INPUTS, 50, CPU)
    assert not done.steady
    assert len(done.samples_ms) == WARMUP_MAX_ITERS


def test_it_is_bounded_in_time(monkeypatch):
    seconds = itertools.count(step=40.0)
    monkeypatch.setattr(warmup, "perf_counter", lambda: next(seconds))
    with_series(monkeypatch, itertools.count(1), itertools.repeat(None))
    assert len(warm_up(TinyNet(), INPUTS, 150, CPU).samples_ms) == WARMUP_WINDOW


def test_a_model_that_raises_says_in_which_iteration():
    def broken(x):
        raise RuntimeError("inner trouble")

    with pytest.raises(RuntimeError, match="inner trouble") as caught:
        warm_up(broken, INPUTS, 50, CPU)
    assert "iteration 1 of the warm-up" in caught.value.__notes__[0]
