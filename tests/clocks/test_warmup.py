from itertools import count, cycle, repeat

import numpy as np
import pytest
import torch
from fakes import TinyNet

from helpers.clocks import WARMUP_MAX_ITERS, warmup
from helpers.clocks.warmup import WARMUP_WINDOW, warm_up

CPU, INPUTS = torch.device("cpu"), [torch.zeros(1, 3, 8, 8)]


def test_it_runs_the_model_and_keeps_every_latency():
    with torch.inference_mode():
        done = warm_up(TinyNet().eval(), INPUTS, 60, CPU)
    assert 60 <= len(done.samples_ms) <= WARMUP_MAX_ITERS
    assert (done.samples_ms > 0).all()


CASES = {  # latencies, SM clocks, seconds at each look, windows that it takes, does it end steady?
    "latencies agree": ([9, 5, 3, 2, 2, 2], repeat(None), 1, 5, True),
    "the SM clock agrees": (repeat(2.0), [345, 800, 1400, 1700, 1950, 1980], 1, 6, True),
    "latencies never": ((x * x for x in count(1)), repeat(1980), 1, 8, False),
    "the SM clock never": (repeat(2.0), cycle([1980, 1200]), 1, 8, False),
    "time is up": (count(1), repeat(None), 40, 1, False),
}


@pytest.mark.parametrize("case", CASES)
def test_it_ends_when_all_is_steady_or_at_its_bound_and_says_which(monkeypatch, case):
    *series, step, windows, steady = CASES[case]
    latencies, clocks, seconds = *map(iter, series), count(step=step)
    read = lambda model, x, n, device: np.full(n, next(latencies))  # noqa: E731
    monkeypatch.setattr(warmup, "host_latencies", read)
    monkeypatch.setattr(warmup, "sm_clock_mhz", lambda handle: next(clocks))
    monkeypatch.setattr(warmup, "perf_counter", lambda: next(seconds))
    done = warm_up(TinyNet(), INPUTS, 50, CPU)
    assert done.steady == steady
    assert len(done.samples_ms) == windows * WARMUP_WINDOW
