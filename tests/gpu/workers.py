"""What each fresh process of `tests.gpu.reference` measures; each returns (settings, samples)."""

import time
from dataclasses import asdict

import numpy as np
import torch

from helpers.bench_latency import benchmark_latency, prepared
from helpers.clocks.calibration import calibrate
from helpers.clocks.profiling import profile_forwards
from helpers.environment import choose_device, collect_environment
from helpers.models import build_model
from helpers.validation.interference import Watch
from tests.gpu.methods import METHODS, repeat_method

DEVICE = torch.device("cuda:0")
LAYOUTS, LAYOUT_SAMPLES = 12, 120


def worker_repeat(seed: int, compare: bool) -> tuple[dict, dict]:
    """Three consecutive runs on both clocks and three interleaved on the host's.

    With `compare`, the other methods are measured too, all in random order.
    """
    random = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(1, 3, 32, 32, generator=generator) for _ in range(8)]
    model = build_model("resnet18", 0).to(DEVICE)
    settings, samples = {"seed": seed, "compared": compare}, {}
    settings["order"] = random.permutation(["J1", *METHODS] if compare else ["J1"]).tolist()
    for name in settings["order"]:
        if name == "J1":
            samples |= consecutive_runs(model, inputs, settings)
        else:
            samples |= repeat_method(name, model, inputs, DEVICE)
    samples |= interleaved_runs(model, inputs)
    return settings, samples


def consecutive_runs(model, inputs, settings: dict) -> dict[str, np.ndarray]:
    """Three runs as the notebook makes them, with what each sample cost in wall time."""
    samples, costs, settings["retried"], watch = {}, [], [], Watch(DEVICE)
    for run in range(3):
        with prepared(model, inputs, 50, device=DEVICE) as bench:
            start = time.perf_counter()
            measured = bench.new_run(500)
            while not measured.complete:
                watch.look()
                measured.measure_block()
            watch.look()
            result = measured.result()
            watch.observations(result)
            shared = time.perf_counter() - start - sum(result.wall_s.values())
        costs.append(_cost(result, shared))
        settings["retried"].append(result.retried_batches)
        samples[f"host_consecutive_{run}"] = result.host.samples_ms
        samples[f"gpu_{run}"] = result.gpu.samples_ms
    settings["cost"] = {key: float(np.median([c[key] for c in costs])) for key in costs[0]}
    return samples


def interleaved_runs(model, inputs) -> dict[str, np.ndarray]:
    """Three runs in turn, on the host's clock only."""

    with prepared(model, inputs, 50, device=DEVICE) as bench:
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
    samples, model = {}, build_model("resnet18", 0).to(DEVICE)
    inputs = [torch.randn(1, 3, 32, 32) for _ in range(8)]
    for run in range(3):
        result = benchmark_latency(model, inputs, device=DEVICE, precision="default")
        samples[f"host_{run}"] = result.host.samples_ms
        samples[f"gpu_{run}"] = result.gpu.samples_ms
    moved = [x.to(DEVICE) for x in inputs]
    profiles = {p: asdict(profile_forwards(model, moved, DEVICE, p)) for p in ("fp32", "default")}
    return {"profiles": profiles, "tf32": result.conditions.tf32_convolutions}, samples


def worker_layout(seed: int, compare: bool) -> tuple[dict, dict]:
    """The same model moved to other memory, again and again, in one process.

    "same" repeats without moving: what differs from "moved" is where weights and inputs lie.
    """
    samples, spacers = {}, []
    random = np.random.default_rng(seed)
    inputs = [torch.randn(1, 3, 32, 32) for _ in range(8)]
    model = build_model("resnet18", 0)
    for layout in range(LAYOUTS):
        model.to("cpu")
        torch.cuda.empty_cache()
        spacers.append(torch.empty(int(random.integers(1, 64)) * 2**20, device=DEVICE))
        with prepared(model.to(DEVICE), inputs, 50, device=DEVICE) as bench:
            for name in ("moved", "same"):
                taken = bench.gpu_clock.measure(model, bench.inputs, LAYOUT_SAMPLES)
                samples[f"{name}_{layout}"] = taken.samples_ms
    return {}, samples


def worker_calibrate(seed: int, compare: bool) -> tuple[dict, dict]:
    """A calibration receipt, with its points."""
    receipt = calibrate(DEVICE)
    clocks = {c.clock: asdict(c) for c in receipt.clocks}
    settings = {"status": receipt.status, "gpu_timer_ratio": receipt.gpu_timer_ratio}
    return settings | {"clocks": clocks}, {}


def worker_environment(seed: int, compare: bool) -> tuple[dict, dict]:
    """The environment record."""
    return collect_environment(choose_device("auto")), {}


WORKERS = {
    "repeat": worker_repeat,
    "default": worker_default,
    "layout": worker_layout,
    "calibrate": worker_calibrate,
    "environment": worker_environment,
}
