"""Inject faults while a latency is measured, and count what is detected and what is a false alarm.

    python -m benchmarks.interference.inject FOLDER [--quick] [--device cpu] [--limit-s 420]

Rounds of clean and disturbed runs in random order, until eleven rounds are done or the time is up.
Writes FOLDER/interference.json (every run with its tags) and interference.npz (all samples).
`--device cpu --quick` tries the script itself.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.interference.faults import all_faults
from helpers.bench_latency import benchmark_latency
from helpers.models import build_model
from helpers.validation.interference import Watch, flags

CLEAN, PAIRS = 5, 2  # per round
SETTLE_S = 1.0  # NVML's longest sample period: the next run must not inherit this one's samples
READY_S = 90.0
BURST_RUN = 5  # bursts come every 0.5 s: a run must last for several, 5 times the others


class Suite:
    """One model, one watch, all injectors; collects runs as dictionaries and their samples."""

    def __init__(self, device: torch.device, faults: dict, iterations: int):
        self.device, self.faults, self.iterations = device, faults, iterations
        self.model, self.watch = build_model("resnet18", 0).to(device), Watch(device)
        self.images = [torch.randn(1, 3, 32, 32) for _ in range(8)]
        self.runs, self.pairs, self.samples = [], [], {}

    def run(self, kind: str, index: int) -> None:
        """Measure once under `kind`; an error is a result too and never ends the suite."""
        start, record = time.perf_counter(), {"kind": kind, "round": index, "error": "", "tags": ()}
        self.watch.forget()  # the looks of a run that failed
        try:
            result = self._measure(kind)
            record["tags"] = flags(self.watch.observations(result))
            record |= self._keep(result, f"{len(self.runs):03d}_{kind}")
        except Exception as problem:  # recorded by name
            record["error"] = f"{type(problem).__name__}: {problem}"[:300]
        record["seconds"] = time.perf_counter() - start
        self.runs.append(record)
        print(kind, f"{record['seconds']:.1f} s", record["tags"], record["error"], flush=True)
        if kind.startswith("gpu_"):
            time.sleep(SETTLE_S)

    def _measure(self, kind: str):
        if kind == "clean":
            return self._latency(2, self.watch.look)
        fault = self.faults[kind]
        if not fault.alive:
            raise RuntimeError(f"the injector {kind} has died")
        fault.on()
        try:
            return self._latency(BURST_RUN if kind == "gpu_bursts" else 1, self.watch.look)
        finally:
            fault.off()

    def _latency(self, times: int, look=lambda: None):
        iterations = times * self.iterations
        options = {"device": self.device, "between_blocks": look}
        return benchmark_latency(self.model, self.images, measure_iters=iterations, **options)

    def _keep(self, result, name: str) -> dict:
        """Figures (ms) of both clocks; their samples are kept under `name`."""
        kept = {}
        for clock in ("host", "gpu"):
            if (summary := getattr(result, clock)) is not None:
                kept[clock] = {q: getattr(summary, q) for q in ("mean", "p50", "p95")}
                self.samples[f"{name}_{clock}"] = summary.samples_ms
        return kept

    def pair(self) -> None:
        """The same short run with and without looks, in random order: the cost of looking."""
        found = {}
        for name in random.sample(["with", "without"], 2):
            result = self._latency(1, *[self.watch.look] * (name == "with"))
            found[name] = self._keep(result, f"pair_{len(self.pairs):03d}_{name}")
        self.pairs.append(found)

    def save(self, folder: Path, facts: dict) -> None:
        """Write everything measured so far."""
        report = {**facts, "runs": self.runs, "pairs": self.pairs}
        text = json.dumps(report, indent=1, ensure_ascii=False)
        (folder / "interference.json").write_text(text, encoding="utf8")
        np.savez_compressed(folder / "interference.npz", **self.samples)


def ready_faults(faults: dict) -> tuple[list[str], dict[str, str]]:
    """Kinds that can be injected, and why the others cannot."""
    end = time.monotonic() + READY_S
    problems = {kind: f.wait_ready(max(0.1, end - time.monotonic())) for kind, f in faults.items()}
    missing = {kind: problem for kind, problem in problems.items() if problem}
    return [kind for kind in faults if kind not in missing], missing


def main() -> None:
    """Do rounds while the time lasts; what is lost when the machine goes is one round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="one short round, to try the script")
    parser.add_argument("--limit-s", type=float, default=420.0, help="no round would end later")
    given = parser.parse_args()
    rounds, iterations = (1, 40) if given.quick else (11, 100)
    given.folder.mkdir(parents=True, exist_ok=True)
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    start, longest = time.monotonic(), 0.0
    scratch = tempfile.TemporaryDirectory()  # the injectors' flags and logs
    faults = all_faults(Path(scratch.name), given.device)
    facts = {"device": given.device, "torch": torch.__version__, "iterations": iterations}
    try:
        kinds, facts["missing"] = ready_faults(faults)
        suite = Suite(torch.device(given.device), faults, iterations)
        for index in range(rounds):
            began = time.monotonic()
            if began - start + longest > given.limit_s:
                break
            tasks = [*kinds, *["clean"] * CLEAN, *["pair"] * PAIRS]
            for task in random.sample(tasks, len(tasks)):
                suite.pair() if task == "pair" else suite.run(task, index)
            suite.save(given.folder, facts | {"wall_s": time.monotonic() - start})
            longest = max(longest, time.monotonic() - began)
    finally:
        for fault in faults.values():
            fault.close()
        scratch.cleanup()


if __name__ == "__main__":
    main()
