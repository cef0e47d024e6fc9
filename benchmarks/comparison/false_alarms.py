"""False alarms and power of the comparison's statistics, on pairs measured on a GPU, in 3 minutes.

    python -m benchmarks.comparison.false_alarms FOLDER

Every pair is measured on its own: ROUNDS rounds with one block of each callable in random order.
A/A pairs measure one callable against itself. In the others a real delay is injected into the
second callable: on the GPU's clock a kernel that spins for 1 % of the latency, on the host's a
busy-wait of 3 %. Host pairs run ResNet-18 kernel by kernel, GPU pairs replay it as a CUDA graph
(the same kernels without the cost of launching them). FOLDER gets comparison.json and samples.npz
(every raw sample).
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest

from helpers import environment
from helpers.annex.comparison.stats import FASTER, SLOWER, compare_rounds
from helpers.annex.variants import build, parse
from helpers.bench_latency import benchmark_latency, move_inputs
from helpers.clocks import GpuClock, host_latencies
from helpers.clocks.calibration import Spin
from helpers.clocks.conditions import measuring_conditions
from helpers.models import build_model

ROUNDS, BLOCK = 20, 3
INJECTED = {"gpu": 0.01, "host": 0.03}
PAIRS = {"aa_host": 200, "aa_gpu": 200, "shift_gpu": 40, "shift_host": 60}  # in this order

Measure = Callable[[int], np.ndarray]  # entry, 0 or 1 -> (BLOCK,) ms


def measure_pair(measure: Measure, random: np.random.Generator) -> np.ndarray:
    """One pair: (ROUNDS, 2, BLOCK) samples in ms, both entries in random order in each round."""
    samples = np.zeros((ROUNDS, 2, BLOCK))
    for taken in samples:
        for entry in random.permutation(2):
            taken[entry] = measure(int(entry))
    return samples


def summarise(found: dict[str, np.ndarray]) -> list[dict]:
    """One row per kind: in how many of the comparisons a difference was found."""
    rows = []
    for kind, pairs in found.items():
        what, clock = kind.split("_")
        counted = (SLOWER, FASTER) if what == "aa" else (SLOWER,)
        ratios = [compare_rounds(blocks)[0] for blocks in np.median(pairs, axis=3)]
        hits = sum(ratio.verdict in counted for ratio in ratios)
        bounds = binomtest(hits, len(ratios)).proportion_ci()
        rows.append(
            {
                "clock": clock,
                "what": "A/A" if what == "aa" else "retard injecté",
                "origin": "mesurées",
                "rounds": ROUNDS,
                "comparisons": len(ratios),
                "found": hits,
                "low": float(bounds[0]),
                "high": float(bounds[1]),
                "median_ratio": float(np.median([ratio.ratio for ratio in ratios])),
                "median_detectable": float(np.median([ratio.detectable for ratio in ratios])),
            }
        )
    return rows


def waiting(call: Callable, delay_ms: float) -> Callable:
    """The callable after a busy-wait of the host."""

    def late(x):
        end = time.perf_counter_ns() + round(1e6 * delay_ms)
        while time.perf_counter_ns() < end:
            pass
        return call(x)

    return late


def measures_on(model, inputs, device: torch.device) -> tuple[dict[str, Measure], dict]:
    """How each kind's blocks are measured, and the delays (ms) that were injected."""
    graph, clock, spin = build(parse("cudagraph"), model, inputs[0]), GpuClock(device), Spin(device)
    host_latencies(model, inputs, 200, device)
    level = {
        "host": float(np.median(host_latencies(model, inputs, 200, device))),
        "gpu": float(np.median(clock.measure(graph, inputs, 100).samples_ms)),
    }
    delay = {name: INJECTED[name] * level[name] for name in level}

    def spun(x):
        spin(1e3 * delay["gpu"])
        return graph(x)

    def by_host(*calls):
        def measure(entry):
            host_latencies(calls[entry], inputs, 1, device)  # unmeasured, as in a session
            return host_latencies(calls[entry], inputs, BLOCK, device)

        return measure

    def by_gpu(*calls):
        return lambda entry: clock.measure(calls[entry], inputs, BLOCK).samples_ms

    clock.adapt(spun, inputs)  # the longer queue of the two
    measures = {
        "aa_host": by_host(model, model),
        "aa_gpu": by_gpu(graph, graph),
        "shift_gpu": by_gpu(graph, spun),
        "shift_host": by_host(model, waiting(model, delay["host"])),
    }
    return measures, {"level_ms": level, "delay_ms": delay}


def main() -> None:
    """Measure kind after kind; what is lost when the machine goes is one kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit-s", type=float, default=190, help="no pair begins after this")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    deadline, device = time.perf_counter() + args.limit_s, torch.device("cuda:0")
    model = build_model("resnet18", 0).to(device).eval()
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(1, 3, 32, 32, generator=generator) for _ in range(8)]
    benchmark_latency(model, batches, measure_iters=20, device=device)  # wakes the GPU up
    random, found = np.random.default_rng(0), {}
    facts = {"block": BLOCK, "environment": environment.look().facts}
    with measuring_conditions(model, "fp32"):
        measures, injected = measures_on(model, move_inputs(batches, device), device)
        for kind, measure in measures.items():
            pairs = []
            while len(pairs) < PAIRS[kind] and time.perf_counter() < deadline:
                pairs.append(measure_pair(measure, random))
            if pairs:
                found[kind] = np.array(pairs)
                np.savez_compressed(args.folder / "samples.npz", **found)
    record = facts | injected | {"rows": summarise(found)}
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (args.folder / "comparison.json").write_text(text, encoding="utf8")
    for row in record["rows"]:
        print(row)


if __name__ == "__main__":
    main()
