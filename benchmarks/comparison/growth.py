"""How time and memory of a comparison grow with its variants and its runs.

    python -m benchmarks.comparison.growth FOLDER

FOLDER gets growth.json: seconds and memory (MiB) of each comparison, the line fitted through its
seconds, and its largest relative error. The entries are copies of ResNet-18, eager, so that each
costs the same; what grows is the comparison.
"""

import argparse
import copy
import json
from pathlib import Path
from time import perf_counter

import numpy as np
import psutil
import torch

from helpers.comparison import measure_interleaved
from helpers.environment import choose_device, collect_environment
from helpers.models import build_model

ENTRIES, RUNS, SAMPLES = (2, 4, 8), (1, 2, 4), 40


def main() -> None:
    """Measure every combination in random order, fit, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    choice, random = choose_device("auto"), np.random.default_rng(0)
    model = build_model("resnet18", 0).to(choice.device).eval()
    pool = {"fp32": model} | {f"copie {k}": copy.deepcopy(model) for k in range(1, max(ENTRIES))}
    inputs = [torch.randn(1, 3, 32, 32) for _ in range(8)]
    measure(pool, 2, 1, inputs, choice.device)  # loads kernels
    plan = random.permutation([(n, runs) for n in ENTRIES for runs in RUNS]).tolist()
    points = [measure(pool, n, runs, inputs, choice.device) for n, runs in plan]
    found = {"environment": collect_environment(choice), "samples": SAMPLES, "points": points}
    found["line"] = line(points)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (folder / "growth.json").write_text(text, encoding="utf8")
    for point in sorted(points, key=lambda p: (p["entries"], p["runs"])):
        print(" ".join(f"{key} {value:.4g}" for key, value in point.items()))
    print(found["line"])


def measure(pool: dict, entries: int, runs: int, inputs, device: torch.device) -> dict:
    """One comparison: `entries` callables and the A/A control, `runs` runs."""
    chosen = {name: (pool[name], "fp32") for name in list(pool)[:entries]}
    before = _memory(device)
    start = perf_counter()
    measured = measure_interleaved(
        chosen, inputs, runs=runs, warmup_iters=20, measure_iters=SAMPLES, device=device
    )
    seconds = perf_counter() - start
    grown = {name: now - before[name] for name, now in _memory(device).items()}
    kept = sum(
        summary.samples_ms.nbytes
        for results in measured.runs.values()
        for result in results
        for summary in (result.host, result.gpu)
        if summary is not None
    )
    return {
        "entries": entries,
        "runs": runs,
        "seconds": seconds,
        "forwards_ms": sum(forward_ms(r) for results in measured.runs.values() for r in results),
        **grown,
        "samples_mib": kept / 2**20,
    }


def forward_ms(result) -> float:
    """What the measured forwards of one run took, host samples and queueing alike."""
    gpu = 0.0 if result.gpu is None else (result.launch_ms + result.gpu.mean) * result.gpu.n
    return result.host.mean * result.host.n + gpu


def line(points: list[dict]) -> dict[str, float]:
    """Least squares: seconds = a + b (entries + 1) + c (entries + 1) runs; the A/A is an entry."""
    entries = np.array([p["entries"] + 1 for p in points])
    runs, seconds = (np.array([p[key] for p in points]) for key in ("runs", "seconds"))
    terms = np.stack([np.ones_like(seconds), entries, entries * runs], axis=1)
    weights = 1 / seconds  # relative errors
    (a, b, c), *_ = np.linalg.lstsq(terms * weights[:, None], seconds * weights, rcond=None)
    error = np.abs(terms @ [a, b, c] / seconds - 1)
    found = {"fixed_s": a, "per_entry_s": b, "per_entry_and_run_s": c, "worst_error": error.max()}
    return {name: float(value) for name, value in found.items()}


def _memory(device: torch.device) -> dict[str, float]:
    found = {"host_mib": psutil.Process().memory_info().rss / 2**20}
    if device.type == "cuda":
        found["gpu_mib"] = torch.cuda.memory_allocated(device) / 2**20
    return found


if __name__ == "__main__":
    main()
