import itertools

import numpy as np
import pytest
import torch
from fakes import TinyNet

from helpers.clocks import warmup
from helpers.clocks.warmup import WARMUP_MAX_ITERS, WARMUP_WINDOW, warm_up

CPU = torch.device("cpu")
INPUTS = [torch.zeros(1, 3, 8, 8)]


@pytest.fixture
def series(monkeypatch):
    """Let each window read the next latency, and the SM clock after it the next frequency."""

    def run(latencies_ms, clocks_mhz, iterations=50):
        latencies, clocks = iter(latencies_ms), iter(clocks_mhz)
        read = lambda model, x, n, device: np.full(n, next(latencies))  # noqa: E731
        monkeypatch.setattr(warmup, "host_latencies", read)
        monkeypatch.setattr(warmup, "sm_clock_mhz", lambda handle: next(clocks))
        return warm_up(TinyNet(), INPUTS, iterations, CPU)

    return run


def test_it_runs_the_model_and_keeps_every_latency():
    with torch.inference_mode():
        done = warm_up(TinyNet().eval(), INPUTS, 60, CPU)
    assert 60 <= len(done.samples_ms) <= WARMUP_MAX_ITERS
    assert (done.samples_ms > 0).all()


CASES = {  # latencies, SM clocks, windows that it takes, whether it ends steady
    "latencies agree": ([9, 5, 3, 2, 2, 2], itertools.repeat(None), 5, True),
    "the SM clock agrees": (itertools.repeat(2.0), [345, 800, 1400, 1700, 1950, 1980], 6, True),
    "latencies never": ((x * x for x in itertools.count(1)), itertools.repeat(1980), 8, False),
    "the SM clock never": (itertools.repeat(2.0), itertools.cycle([1980, 1200]), 8, False),
}


@pytest.mark.parametrize("case", CASES)
def test_it_ends_when_all_is_steady_or_at_its_bound_and_says_which(series, case):
    latencies_ms, clocks_mhz, windows, steady = CASES[case]
    done = series(latencies_ms, clocks_mhz)
    assert done.steady == steady
    assert len(done.samples_ms) == windows * WARMUP_WINDOW


def test_it_is_bounded_in_time(monkeypatch, series):
    seconds = itertools.count(step=40.0)
    monkeypatch.setattr(warmup, "perf_counter", lambda: next(seconds))
    assert len(series(itertools.count(1), itertools.repeat(None), 150).samples_ms) == WARMUP_WINDOW
