"""What a profiler that stays attached does to later latencies, and that ours leaves nothing behind.

    python -m tests.gpu.profiler FOLDER

In each of a few fresh processes, on both clocks: before any profile, then in turn, in changing
order, after a plain `torch.profiler.profile` and after our `detached_profile`. FOLDER gets
profiler.json and samples.npz (every raw sample, in ms).
"""

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.profiler import profile

from helpers.annex.variants import build, parse
from helpers.annex.variants.select import FASTEST
from helpers.bench_latency import prepared
from helpers.clocks import host_latencies
from helpers.clocks.profiling import detached_profile
from helpers.environment import choose_device, collect_environment
from helpers.models import build_model

PROCESSES, CYCLES, SAMPLES = 3, 4, 200
VARIANTS = ("fp32", FASTEST)


def main() -> None:
    """Measure in fresh processes, write, print the medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if (choice := choose_device("auto")).device.type != "cuda":
        parser.error(f"a CUDA GPU is needed, there is none here: {choice.reason}")
    samples: dict[str, np.ndarray] = {}
    context = multiprocessing.get_context("spawn")
    environment = collect_environment(choice)
    for process in range(PROCESSES):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            taken = pool.submit(worker).result()
        samples |= {f"process_{process}/{name}": values for name, values in taken.items()}
        medians = {name: float(np.median(values)) for name, values in samples.items()}
        found = {"environment": environment, "ratios": ratios(medians), "median_ms": medians}
        write(folder, found, samples)
    for name, value in found["ratios"].items():
        print(name, " ".join(f"{key} {number:.4f}" for key, number in value.items()))


def write(folder: Path, found: dict, samples: dict[str, np.ndarray]) -> None:
    """Both files, after each process."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (folder / "profiler.json").write_text(text, encoding="utf8")
    np.savez_compressed(folder / "samples.npz", **samples)


def worker() -> dict[str, np.ndarray]:
    """All phases of one process: {"variant/clock/phase_cycle": samples (n,) in ms}."""
    device, samples = choose_device("auto").device, {}
    inputs = [torch.randn(1, 3, 32, 32) for _ in range(8)]
    model, example = build_model("resnet18", 0).to(device).eval(), inputs[0].to(device)
    calls = {name: build(parse(name), model, example) for name in VARIANTS}
    samples |= measure(calls, inputs, device, "before_0")
    for cycle in range(CYCLES):
        phases = [("attached", profile()), ("detached", detached_profile(device))]
        for phase, profiled in phases if cycle % 2 else reversed(phases):  # a drift hits both alike
            with profiled, torch.inference_mode():
                for call in calls.values():
                    call(example)
                torch.cuda.synchronize(device)
            samples |= measure(calls, inputs, device, f"{phase}_{cycle}")
    return samples


def measure(calls: dict, inputs, device: torch.device, phase: str) -> dict[str, np.ndarray]:
    """Both clocks of every callable, one after the other."""
    samples = {}
    for name, call in calls.items():
        with prepared(call, inputs, 50, device=device) as bench:
            host = host_latencies(call, bench.inputs, SAMPLES, device)
            gpu = bench.gpu_clock.measure(call, bench.inputs, SAMPLES).samples_ms
        samples |= {f"{name}/host/{phase}": host, f"{name}/gpu/{phase}": gpu}
    return samples


def ratios(medians: dict[str, float]) -> dict[str, dict[str, float]]:
    """By variant and clock: median of all cycles' medians (ms), and attached over detached."""
    found = {}
    for variant in VARIANTS:
        for clock in ("host", "gpu"):
            level = {
                phase: [v for k, v in medians.items() if f"/{variant}/{clock}/{phase}" in k]
                for phase in ("before", "attached", "detached")
            }
            pairs = np.array(level["attached"]) / np.array(level["detached"])
            found[f"{variant}, {clock}"] = {
                **{f"{phase}_ms": float(np.median(values)) for phase, values in level.items()},
                "attached_over_detached": float(np.median(pairs)),
                "smallest": float(pairs.min()),
                "largest": float(pairs.max()),
                "pairs": len(pairs),
            }
    return found


if __name__ == "__main__":
    main()
