"""False alarms and power of `helpers.comparison.stats` on pairs measured on a GPU, in 3 minutes.

    python -m tests.gpu.comparison FOLDER

Every pair is measured on its own: ROUNDS rounds with one block of each callable in random order.
A/A pairs measure one callable against itself. In the others a real delay is injected into the
second callable: on the GPU's clock a kernel that spins for 1 % of the latency, on the host's a
busy-wait of 3 %. Host pairs run ResNet-18 kernel by kernel, GPU pairs replay it as a CUDA graph
(the same kernels without the cost of launching them). FOLDER gets comparison.json, samples.npz
(every raw sample) and comparison.md (the table, which says what was measured and what computed).
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest

from helpers.bench_latency import benchmark_latency, move_inputs
from helpers.calibration import Spin
from helpers.clocks import GpuClock, host_latencies
from helpers.comparison import compare, measure_interleaved
from helpers.comparison.stats import FASTER, SLOWER, compare_rounds
from helpers.comparison.tables import comparison_sentences, markdown_table
from helpers.conditions import measuring_conditions
from helpers.environment import choose_device, collect_environment
from helpers.french import number, percent
from helpers.measuring import announced
from helpers.models import build_model
from helpers.variants import build, parse

ROUNDS, BLOCK = 20, 3
JOINED = 4  # pairs in a row, put end to end, make one comparison of 80 rounds
INJECTED = {"gpu": 0.01, "host": 0.03}
PAIRS = {"aa_host": 200, "aa_gpu": 200, "shift_gpu": 40, "shift_host": 60}  # in this order
CLOCKS = {"gpu": "horloge GPU, graphe", "host": "horloge hôte, noyau par noyau"}

SAMPLES = "samples.npz"

Measure = Callable[[int], np.ndarray]  # entry, 0 or 1 -> (BLOCK,) ms


def measure_pair(measure: Measure, random: np.random.Generator) -> np.ndarray:
    """One pair: (ROUNDS, 2, BLOCK) samples in ms, both entries in random order in each round."""
    samples = np.zeros((ROUNDS, 2, BLOCK))
    for taken in samples:
        for entry in random.permutation(2):
            taken[entry] = measure(int(entry))
    return samples


def measure_all(
    measures: dict[str, Measure], deadline: float, keep: Callable[[dict], None]
) -> dict[str, np.ndarray]:
    """Measure every kind's pairs until `deadline`; `keep` gets all there is after each kind.

    What is lost when the machine goes is one kind.
    """
    random, found = np.random.default_rng(0), {}
    for kind, measure in measures.items():
        start, pairs = time.perf_counter(), []
        while len(pairs) < PAIRS[kind] and time.perf_counter() < deadline:
            pairs.append(measure_pair(measure, random))
        if pairs:
            found[kind] = np.array(pairs)
        print(f"{kind}: {len(pairs)} pairs in {time.perf_counter() - start:.1f} s", flush=True)
        keep(found)
    return found


def summarise(found: dict[str, np.ndarray]) -> list[dict]:
    """One row per kind, number of rounds and origin: how many of the comparisons found what."""
    rows = []
    for kind, pairs in found.items():
        clock, shift = kind.split("_")[1], 1 + INJECTED[kind.split("_")[1]]
        medians = np.median(pairs, axis=3)
        whole = medians[: len(medians) // JOINED * JOINED]
        joined = whole.reshape(-1, JOINED * ROUNDS, 2)
        for blocks, origin in ((medians, "mesurées"), (joined, f"mesurées, {JOINED} bout à bout")):
            if kind.startswith("shift"):
                rows.append(_row(clock, "retard injecté", origin, blocks, (SLOWER,)))
                continue
            rows.append(_row(clock, "A/A", origin, blocks, (SLOWER, FASTER)))
            scaled = f"A/A {origin}, seconde × {number(shift, 3)}"
            rows.append(_row(clock, "retard calculé", scaled, blocks * [1, shift], (SLOWER,)))
    return rows


def _row(clock: str, what: str, origin: str, blocks: np.ndarray, counted: tuple) -> dict:
    """Count the verdicts in `counted` among comparisons (n, rounds, 2)."""
    ratios = [compare_rounds(block_ms)[0] for block_ms in blocks]
    hits = sum(ratio.verdict in counted for ratio in ratios)
    bounds = binomtest(hits, len(ratios)).proportion_ci() if ratios else (0.0, 1.0)
    return {
        "clock": clock,
        "what": what,
        "origin": origin,
        "rounds": int(blocks.shape[1]),
        "comparisons": len(ratios),
        "found": hits,
        "low": float(bounds[0]),
        "high": float(bounds[1]),
        "median_ratio": float(np.median([r.ratio for r in ratios])) if ratios else None,
        "median_detectable": float(np.median([r.detectable for r in ratios])) if ratios else None,
    }


def markdown(rows: list[dict]) -> str:
    """The table in French."""
    lines = [
        {
            "horloge": CLOCKS[row["clock"]],
            "comparaison": row["what"],
            "paires": row["origin"],
            "tours": row["rounds"],
            "n": row["comparisons"],
            "différence trouvée": f"{row['found']} ({percent(row['found'] / row['comparisons'])})",
            "intervalle binomial à 95 %": f"{percent(row['low'])} – {percent(row['high'])}",
            "rapport médian": number(row["median_ratio"], 5),
            "décelable, médiane": percent(row["median_detectable"]),
        }
        for row in rows
        if row["comparisons"]
    ]
    return markdown_table(pd.DataFrame(lines).set_index("horloge")) if lines else ""


def write(folder: Path, rows: list[dict], facts: dict) -> None:
    """Write comparison.json and comparison.md."""
    record = json.dumps({**facts, "rows": rows}, indent=1, ensure_ascii=False)
    (folder / "comparison.json").write_text(record, encoding="utf8")
    told = "".join(f"\n- {sentence}" for sentence in facts.get("session", ()))
    (folder / "comparison.md").write_text(f"{markdown(rows)}{told}\n", encoding="utf8")


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
    facts = {"level_ms": level, "delay_ms": delay, "spin_ms": spin.last_ms()}
    return measures, facts


def whole_session(model, inputs, device: torch.device) -> list[str]:
    """A short comparison as the notebook makes it: A/A control and three copies."""
    copies = {f"fp32 (copie {i})": (copy.deepcopy(model), "fp32") for i in (1, 2, 3)}
    measured = measure_interleaved(
        {"fp32": (model, "fp32"), **copies},
        inputs,
        copies=tuple(copies),
        measure_iters=60,
        device=device,
    )
    return comparison_sentences(measured, compare(measured))


def main(arguments: list[str] | None = None) -> None:
    """Measure, write, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit-s", type=float, default=190, help="no pair begins after this")
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    deadline = time.perf_counter() + args.limit_s
    device = torch.device("cuda:0")
    model = build_model("resnet18", 0).to(device).eval()
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(1, 3, 32, 32, generator=generator) for _ in range(8)]
    benchmark_latency(model, batches, measure_iters=20, device=device)  # wakes the GPU up
    facts = {"block": BLOCK, "session": whole_session(model, batches, device)}
    print(*facts["session"], sep="\n", flush=True)
    with announced(device), measuring_conditions(model, "fp32"):
        measures, injected = measures_on(model, move_inputs(batches, device), device)
        facts |= injected
        found = measure_all(
            measures, deadline, lambda found: np.savez_compressed(args.folder / SAMPLES, **found)
        )
    rows = summarise(found)
    write(args.folder, rows, facts)
    facts["environment"] = collect_environment(choose_device("auto"))  # compiles: slow, so last
    write(args.folder, rows, facts)
    print((args.folder / "comparison.md").read_text(encoding="utf8"), flush=True)


if __name__ == "__main__":
    main()
