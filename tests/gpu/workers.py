"""What each fresh process of `tests.gpu.reference` measures; every worker returns (settings, samples)."""

import time
from dataclasses import asdict

import numpy as np
import torch

from helpers.bench_latency import benchmark_latency, prepared
from helpers.calibration import calibrate
from helpers.profiling import profile_forwards
from helpers.variants import build_model
from tests.gpu.methods import METHODS, repeat_method

DEVICE = torch.device("cuda:0")
LAYOUTS, LAYOUT_SAMPLES = 12, 120


def worker_repeat(seed: int, compare: bool) -> tuple[dict, dict]:
    """Three consecutive runs on both clocks and three interleaved on the host's.

    With `compare`, the other methods are measured too, all in random order.
    """

    device, random = DEVICE, np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(1, 3, 32, 32, generator=generator) for _ in range(8)]
    model = build_model("resnet18", 0).to(device)
    settings, samples = {"seed": seed, "compared": compare}, {}
    settings["order"] = random.permutation(["J1", *METHODS] if compare else ["J1"]).tolist()
    for name in settings["order"]:
        if name == "J1":
            samples |= consecutive_runs(model, inputs, device, settings)
        else:
            samples |= repeat_method(name, model, inputs, device)
    samples |= interleaved_runs(model, inputs, device)
    return settings, samples


def consecutive_runs(model, inputs, device, settings: dict) -> dict[str, np.ndarray]:
    """Three runs as the notebook makes them, with what each sample cost in wall time."""

    samples, costs, settings["retried"] = {}, [], []
    for run in range(3):
        with prepared(model, inputs, 50, device=device) as bench:
            start = time.perf_counter()
            measured = bench.new_run(500)
            while not measured.complete:
                measured.measure_block()
            result = measured.result()
            shared = time.perf_counter() - start - sum(result.wall_s.values())
        costs.append(_cost(result, shared))
        settings["retried"].append(result.retried_batches)
        samples[f"host_consecutive_{run}"] = result.host.samples_ms
        samples[f"gpu_{run}"] = result.gpu.samples_ms
    settings["cost"] = {key: float(np.median([c[key] for c in costs])) for key in costs[0]}
    return samples


def interleaved_runs(model, inputs, device) -> dict[str, np.ndarray]:
    """Three runs in turn, on the host's clock only."""

    with prepared(model, inputs, 50, device=device) as bench:
        bench.gpu_clock = None
        turns = [bench.new_run(500) for _ in range(3)]
        while not turns[-1].complete:
            for turn in turns:
                turn.measure_block()
        return {f"host_interleaved_{i}": t.result().host.samples_ms for i, t in enumerate(turns)}


def _cost(result, shared_s: float) -> dict[str, float]:
    """Wall time per accepted sample over its own duration; both clocks pay `shared_s`."""
    n = result.host.n
    due = {"host": result.host.mean, "gpu": result.launch_ms + result.gpu.mean}
    return {k: (result.wall_s[k] + shared_s) * 1e3 / n / due[k] for k in due}


def worker_default(seed: int, compare: bool) -> tuple[dict, dict]:
    """Three runs with PyTorch's default switches: what "FP32" is when nobody looks."""

    device, samples = DEVICE, {}
    model = build_model("resnet18", 0).to(device)
    inputs = [torch.randn(1, 3, 32, 32) for _ in range(8)]
    for run in range(3):
        result = benchmark_latency(model, inputs, device=device, precision="default")
        samples[f"host_{run}"], samples[f"gpu_{run}"] = (
            result.host.samples_ms,
            result.gpu.samples_ms,
        )
    moved = [x.to(device) for x in inputs]
    profiles = {p: profile_forwards(model, moved, device, p) for p in ("fp32", "default")}
    kernels = {
        p: {"kernels": f.kernels, "kernel_ms": f.kernel_ms, "copies": f.copies}
        for p, f in profiles.items()
    }
    return {"profiles": kernels, "tf32": result.conditions.tf32_convolutions}, samples


def worker_calibrate(seed: int, compare: bool) -> tuple[dict, dict]:
    """A calibration receipt, with its points."""

    receipt = calibrate(torch.device("cuda:0"))
    return {
        "status": receipt.status,
        "gpu_timer_ratio": receipt.gpu_timer_ratio,
        "clocks": {
            c.clock: {
                "points": c.points,
                "intercept_ms": c.intercept_ms,
                "slope": c.slope,
                "empty_ms": c.empty_ms,
                "resolution_ms": c.resolution_ms,
                "limit_ratio": c.limit_ratio,
            }
            for c in receipt.clocks
        },
    }, {}


