"""The same work timed by several methods, for the side-by-side table."""

import numpy as np
import torch

from helpers.bench_latency import Bench, prepared
from helpers.clocks import GpuClock, host_latencies

ITERATIONS = 500
FLUSHED_ITERATIONS = 200  # a flush costs more than the forward's own launch: fewer samples
FLUSH_BYTES = 256 * 2**20  # five times the 50 MB L2 of an H100


def plain(bench: Bench) -> np.ndarray:
    """The plain protocol: 50 warm-up forwards, 500 x (host clock, forward, synchronize)."""
    host_latencies(bench.model, bench.inputs, 50, bench.device)
    return host_latencies(bench.model, bench.inputs, ITERATIONS, bench.device)


def do_bench(bench: Bench) -> np.ndarray:
    """Triton's do_bench, 700 ms: events around each call, L2 flushed, the queue not kept full."""
    from triton.testing import do_bench as run

    return np.array(run(lambda: bench.model(bench.inputs[0]), rep=700, return_mode="all"))


def torch_timer(bench: Bench) -> np.ndarray:
    """torch's Timer.blocked_autorange, 0.8 s: means of blocks, so only its median is comparable."""
    from torch.utils.benchmark import Timer  # touches the GPU when imported: not in the fork server

    timer = Timer("model(x)", globals={"model": bench.model, "x": bench.inputs[0]})
    return np.array(timer.blocked_autorange(min_run_time=0.8).times) * 1e3


def gpu_clock_cold_l2(bench: Bench) -> np.ndarray:
    """This project's GPU clock with the L2 flushed before every forward, outside the sample."""
    buffer = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=bench.device)
    clock = GpuClock(bench.device, before=buffer.zero_)
    return clock.measure(bench.model, bench.inputs, FLUSHED_ITERATIONS).samples_ms


METHODS = {
    "plain protocol": plain,
    "triton do_bench": do_bench,
    "torch Timer": torch_timer,
    "GPU clock, L2 flushed": gpu_clock_cold_l2,
}


def repeat_method(name: str, model, inputs, device, repeats: int = 3) -> dict[str, np.ndarray]:
    """One method `repeats` times in a row, after a warm-up; returns {name_run: samples in ms}."""
    with prepared(model, inputs, 50, device=device) as bench:
        return {f"{name}_{run}": METHODS[name](bench) for run in range(repeats)}
