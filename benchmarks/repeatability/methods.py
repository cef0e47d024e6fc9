"""The same work timed by several methods, each as its users use it."""

import numpy as np
import torch

from helpers.bench_latency import move_inputs
from helpers.clocks import GpuClock, host_latencies
from helpers.clocks.conditions import measuring_conditions

ITERATIONS = 500
FLUSHED_ITERATIONS = 200  # a flush costs more than the forward's own launch: fewer samples
FLUSH_BYTES = 256 * 2**20  # five times the 50 MB L2 of an H100


def plain(model, inputs, device) -> np.ndarray:
    """The plain protocol: 50 warm-up forwards, 500 x (host clock, forward, synchronize)."""
    host_latencies(model, inputs, 50, device)
    return host_latencies(model, inputs, ITERATIONS, device)


def do_bench(model, inputs, device) -> np.ndarray:
    """Triton's do_bench, 700 ms: events around each call, L2 flushed, the queue not kept full."""
    from triton.testing import do_bench as run

    return np.array(run(lambda: model(inputs[0]), rep=700, return_mode="all"))


def torch_timer(model, inputs, device) -> np.ndarray:
    """torch's Timer.blocked_autorange, 0.8 s: means of blocks, so only its median is comparable."""
    from torch.utils.benchmark import Timer  # touches the GPU when imported: not in the fork server

    timer = Timer("model(x)", globals={"model": model, "x": inputs[0]})
    return np.array(timer.blocked_autorange(min_run_time=0.8).times) * 1e3


def gpu_clock_cold_l2(model, inputs, device) -> np.ndarray:
    """This project's GPU clock with the L2 flushed before every forward, outside the sample."""
    buffer = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device)
    clock = GpuClock(device, before=buffer.zero_)
    return clock.measure(model, inputs, FLUSHED_ITERATIONS).samples_ms


METHODS = {
    "plain protocol": plain,
    "triton do_bench": do_bench,
    "torch Timer": torch_timer,
    "GPU clock, L2 flushed": gpu_clock_cold_l2,
}


def repeat_method(name: str, model, inputs, device, repeats: int = 3) -> dict[str, np.ndarray]:
    """One method `repeats` times in a row, after a warm-up; returns {name_run: samples in ms}."""
    moved = move_inputs(inputs, device)
    with measuring_conditions(model, "fp32"):
        host_latencies(model, moved, 50, device)
        return {f"{name}_{k}": METHODS[name](model, moved, device) for k in range(repeats)}
