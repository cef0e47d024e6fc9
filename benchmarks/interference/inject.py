"""Inject faults while a latency is measured, and count what is detected and what is a false alarm.

    python -m benchmarks.interference.inject FOLDER [--rounds 10] [--seconds 540]

Rounds of clean and disturbed runs in random order. FOLDER gets, after each round, interference.json
(every run with its tags) and interference.npz (all samples). `--device cpu --rounds 1 --iterations
40` tries the script itself.
"""

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import machine_facts, random_batches, save
from benchmarks.interference.faults import Injector, all_faults
from helpers.bench_latency import Run, benchmark_latency
from helpers.environment.facts import first_line
from helpers.models import build_model
from helpers.validation.interference import tags

CLEAN = 6  # per round
SETTLE_S = 1.0  # NVML's longest sample period: the next run must not inherit this one's samples
READY_S = 90.0
LONGER = {"gpu_bursts": 5, "clean": 2}  # bursts come every 0.5 s: a run must last for several


class Suite:
    """One model and all injectors; collects runs as dictionaries and their samples."""

    def __init__(self, device: torch.device, faults: dict[str, Injector], iterations: int):
        self.faults, self.iterations = faults, iterations
        self.model, self.images = build_model("resnet18", 0).to(device), random_batches()
        self.runs: list[Run] = []
        self.records, self.samples = [], {}

    def measure(self, kind: str, index: int) -> None:
        """Measure once under `kind`; an error is a result too and never ends the suite."""
        record = {"kind": kind, "round": index, "error": "", "tags": ()}
        fault = self.faults.get(kind)
        try:
            if fault:
                fault.on()
            iterations = LONGER.get(kind, 1) * self.iterations
            run = benchmark_latency(self.model, self.images, measure_iters=iterations)
            if fault and not fault.alive:
                raise RuntimeError(f"the injector {kind} has died")
            self.runs.append(run)
            record["tags"] = tags(self.runs)[-1].codes  # as a session does: with those before it
            record |= self._keep(run, f"{len(self.records):03d}_{kind}")
        except Exception as problem:  # recorded by name
            record["error"] = first_line(problem)
        finally:
            if fault:
                fault.off()
        self.records.append(record)
        print(kind, record["tags"], record["error"], flush=True)
        if kind.startswith("gpu_"):
            time.sleep(SETTLE_S)

    def _keep(self, run: Run, name: str) -> dict:
        """Figures (ms) of both clocks; their samples are kept under `name`."""
        kept = {}
        for clock in ("host", "gpu"):
            if (summary := getattr(run, clock)) is not None:
                kept[clock] = {q: getattr(summary, q) for q in ("mean", "p50", "p95")}
                self.samples[f"{name}_{clock}"] = summary.samples_ms
        return kept


def main() -> None:
    """Do rounds while the time lasts; what is lost when the machine goes is one round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=540, help="no round would end later")
    args = parser.parse_args()
    random.seed(0)
    torch.set_num_threads(1)
    start, longest = time.monotonic(), 0.0
    faults = all_faults(args.device)
    try:
        kinds = [kind for kind, fault in faults.items() if fault.wait_ready(READY_S)]
        facts = {"environment": machine_facts(), "missing": sorted(faults.keys() - set(kinds))}
        suite = Suite(torch.device(args.device), faults, args.iterations)
        for index in range(args.rounds):
            began = time.monotonic()
            if began - start + longest > args.seconds:
                break
            tasks = [*kinds, *["clean"] * CLEAN]
            for kind in random.sample(tasks, len(tasks)):
                suite.measure(kind, index)
            save(args.folder / "interference.json", facts | {"runs": suite.records})
            np.savez_compressed(args.folder / "interference.npz", **suite.samples)
            longest = max(longest, time.monotonic() - began)
    finally:
        for fault in faults.values():
            fault.close()


if __name__ == "__main__":
    main()
