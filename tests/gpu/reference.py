"""Everything that the protocol claims about the two clocks, measured again in under 9 minutes.

    python -m tests.gpu.reference FOLDER                  # all of it
    python -m tests.gpu.reference FOLDER --only repeat    # the fresh processes alone

FOLDER gets reference.json (figures and the environment), samples.npz (every raw sample) and
reference.md (the tables). Each process is a fresh one; nothing else may run on the machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PROCESSES, COMPARED = 20, 8


def worker_repeat(seed: int, compare: bool) -> tuple[dict, dict]:
    """Three consecutive runs on both clocks and three interleaved on the host's.

    With `compare`, the other methods are measured too, all in random order.
    """
    import torch

    from helpers.variants import build_model
    from tests.gpu.methods import METHODS, repeat_method

    device, random = torch.device("cuda:0"), np.random.default_rng(seed)
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
    from helpers.bench_latency import prepared

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
    from helpers.bench_latency import prepared

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
    import torch

    from helpers.bench_latency import benchmark_latency
    from helpers.profiling import profile_forwards
    from helpers.variants import build_model

    device, samples = torch.device("cuda:0"), {}
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
    import torch

    from helpers.calibration import calibrate

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


WORKERS = {"repeat": worker_repeat, "default": worker_default, "calibrate": worker_calibrate}


def run_fresh(worker: str, seed: int, compare: bool = False) -> tuple[dict, dict]:
    """Run one worker in a process of its own; returns (settings, samples)."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.gpu.reference", folder, "--worker", worker]
        command += ["--seed", str(seed), *(["--compare"] if compare else [])]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        settings = json.loads((Path(folder) / "settings.json").read_text())
        with np.load(Path(folder) / "samples.npz") as stored:
            samples = {name: stored[name] for name in stored.files}
    settings["process_s"] = time.perf_counter() - start
    return settings, samples


def main() -> None:
    """Run the workers one after the other and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=list(WORKERS))
    parser.add_argument("--worker", choices=list(WORKERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.worker:
        settings, samples = WORKERS[args.worker](args.seed, args.compare)
        np.savez_compressed(args.folder / "samples.npz", **samples)
        (args.folder / "settings.json").write_text(json.dumps(settings))
        return
    from tests.gpu.summary import environment, write

    start, found = time.perf_counter(), {"repeat": [], "calibrate": [], "default": []}
    compared = set(
        np.random.default_rng(0).choice(args.processes, min(COMPARED, args.processes), False)
    )
    plan = [("repeat", i, i in compared and not args.only) for i in range(args.processes)]
    plan = [("calibrate", 0, False), ("default", 0, False), *plan, ("calibrate", 1, False)]
    for worker, seed, compare in plan:
        if args.only in (None, worker):
            found[worker].append(run_fresh(worker, seed, compare))
            print(f"{time.perf_counter() - start:6.1f} s  {worker} {seed}", flush=True)
            write(args.folder, found, environment())  # after each: what is lost is one process
    print((args.folder / "reference.md").read_text())
    print(f"total {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
