"""Do three runs agree in a fresh process, and the next process with it? Do other methods?

    python -m benchmarks.repeatability.measure FOLDER [--processes 20] [--compared 8]

FOLDER gets reference.json (figures and the environment) and samples.npz (every raw sample). Each
measurement has a process and a CUDA context of its own, forked from a server that has imported
torch but never touched the GPU; nothing else may run on the machine.
"""

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.repeatability.methods import METHODS, repeat_method
from helpers.bench_latency import benchmark_latency
from helpers.clocks.calibration import calibrate, limit_ms
from helpers.environment import look
from helpers.models import build_model
from helpers.stats import percentile, spread

PROCESSES, COMPARED, RUNS = 20, 8, 3
LIMIT = 0.10
ROWS = {  # name: prefix of the samples' names, the quantile that is repeated
    "p95, GPU clock": ("gpu", 0.95),
    "p95, host clock, consecutive": ("host", 0.95),
}
COMPARED_ROWS = {
    "p95, plain protocol": ("plain protocol", 0.95),
    "p95, Triton do_bench": ("triton do_bench", 0.95),
    "median, torch Timer (block means)": ("torch Timer", 0.50),
    "p95, J1 host clock": ("host", 0.95),
    "p95, J1 GPU clock": ("gpu", 0.95),
    "p95, J1 GPU clock, L2 flushed": ("GPU clock, L2 flushed", 0.95),
}

Samples = dict[str, np.ndarray]  # prefix_run: (n,) ms


def three_runs(model, inputs, device, precision: str = "fp32") -> Samples:
    """Three consecutive runs as the notebook makes them."""
    samples = {}
    for k in range(RUNS):
        run = benchmark_latency(model, inputs, device=device, precision=precision)
        samples |= {f"host_{k}": run.host.samples_ms, f"gpu_{k}": run.gpu.samples_ms}
    return samples


def process(seed: int, compare: bool, precision: str = "fp32") -> Samples:
    """One fresh process: J1's three runs, with `compare` the other methods too, in random order."""
    random, device = (
        np.random.default_rng(seed),
        torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    )
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(1, 3, 32, 32, generator=generator) for _ in range(8)]
    model, samples = build_model("resnet18", 0).to(device), {}
    for name in random.permutation(["J1", *METHODS] if compare else ["J1"]).tolist():
        if name == "J1":
            samples |= three_runs(model, inputs, device, precision)
        else:
            samples |= repeat_method(name, model, inputs, device)
    return samples


def gpu_receipt() -> dict:
    """The GPU clock's calibration in a process of its own, with its points."""
    receipt = calibrate(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return next(asdict(clock) for clock in receipt.clocks if clock.clock == "gpu")


def environment() -> dict:
    return look().facts


def fresh(context, function, *arguments):
    """Call `function` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def row(name: str, processes: list[Samples], prefix: str, q: float) -> dict:
    """One row of a table: how the q-quantile repeats in each process, and between them."""
    values = np.array(
        [[percentile(samples[f"{prefix}_{k}"], q) for k in range(RUNS)] for samples in processes]
    )
    spreads, medians = np.array([spread(v) for v in values]), np.median(values, axis=1)
    return {
        "name": name,
        "processes": len(values),
        "median_ms": float(np.median(medians)),
        "spread_median": float(np.median(spreads)),
        "spread_worst": float(spreads.max()),
        "met": int((spreads < LIMIT).sum()),
        "range_of_medians": float((medians.max() - medians.min()) / medians.mean()),
        "values_ms": values.tolist(),
    }


def held_out(fit: dict, judged: dict) -> list[dict]:
    """Errors (ms) on the held-out durations of one process with the line fitted in another."""
    return [
        {
            "true_ms": true,
            "error_ms": (measured - fit["intercept_ms"]) / fit["slope"] - true,
            "limit_ms": float(limit_ms(true, "gpu", judged["resolution_ms"])),
        }
        for true, measured, used in judged["points"]
        if not used
    ]


def main() -> None:
    """Measure process after process and write after each: what is lost is one process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--compared", type=int, default=COMPARED, help="with the other methods")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__spec__.name])
    record = {"environment": fresh(context, environment), "figures": {}}
    figures, found, fit = record["figures"], [], fresh(context, gpu_receipt)
    default = fresh(context, process, 0, False, "default")
    figures["pytorch_default"] = {
        clock: [percentile(default[f"{clock}_{k}"], 0.95) for k in range(RUNS)]
        for clock in ("host", "gpu")
    }
    for seed in range(args.processes):
        found.append(fresh(context, process, seed, seed < args.compared))
        compared = found[: args.compared]
        figures["repeatability"] = [row(name, found, *what) for name, what in ROWS.items()]
        figures["side_by_side"] = [
            row(name, compared, *what) for name, what in COMPARED_ROWS.items() if compared
        ]
        samples = {f"{i}/{n}": values for i, one in enumerate(found) for n, values in one.items()}
        np.savez_compressed(args.folder / "samples.npz", **samples)
        (args.folder / "reference.json").write_text(json.dumps(record, indent=1), encoding="utf8")
        print(f"process {seed + 1} of {args.processes}", flush=True)
    figures["calibration"] = held_out(fit, fresh(context, gpu_receipt))
    (args.folder / "reference.json").write_text(json.dumps(record, indent=1), encoding="utf8")
    for one in figures["repeatability"] + figures["side_by_side"]:
        print({key: value for key, value in one.items() if key != "values_ms"})


if __name__ == "__main__":
    main()
