"""Inject faults while a latency is measured, and count what is detected and what is a false alarm.

    python -m tests.interference.fault_injection OUTDIR [--quick] [--device cpu] [--limit-s 420]

First fresh processes on an idle GPU, then rounds of clean and disturbed runs in random order, until
eleven rounds are done or the time is up.
Writes OUTDIR/interference.json (every run with its observations), interference.npz (all samples)
and interference.md, and prints the latter. `--device cpu --quick` tries the script itself.
"""

import argparse
import json
import random
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torchvision.models import resnet18

from helpers.bench_latency import Bench, LatencyResult, prepared
from helpers.clocks import host_latencies
from helpers.interference import Watch, flags
from tests.interference.cold_start import cold_runs
from tests.interference.fault_table import markdown
from tests.interference.faults import all_faults

CLEAN, PAIRS = 5, 2  # per round
SETTLE_S = 1.0  # NVML's longest sample period: the next run must not inherit this one's samples
READY_S = 90.0
WARMUP = 50  # forwards before a run on the shared model: the pauses between runs cool the clocks
BURST_RUN = 5  # bursts come every 0.5 s: a run must last for several, 5 times the others


class Suite:
    """One model, one watch, all injectors; collects runs as dictionaries and their samples."""

    def __init__(self, bench: Bench, watch: Watch, faults: dict, iterations: int):
        self.bench, self.watch, self.faults = bench, watch, faults
        self.iterations = iterations
        self.runs, self.pairs, self.samples = [], [], {}
        self.gpu_fault_ended = 0.0

    def run(self, kind: str, round_index: int) -> None:
        """Measure once under `kind`; an error is a result too and never ends the suite."""
        foreign = kind.startswith("gpu_")
        if not foreign:
            self._settle()
        start, error, result, observations = time.perf_counter(), "", None, ()
        self.watch.observations()  # forget the looks of a run that failed
        try:
            result = self._measure(kind)
            observations = self.watch.observations(result)
        except Exception as problem:  # recorded below, by name
            error = f"{type(problem).__name__}: {problem}"[:300]
            observations = self.watch.observations()
        seconds = time.perf_counter() - start
        if foreign:
            self.gpu_fault_ended = time.perf_counter()
        self.record(kind, round_index, seconds, result, observations, error)

    def _settle(self) -> None:
        time.sleep(max(0.0, self.gpu_fault_ended + SETTLE_S - time.perf_counter()))

    def _warm(self) -> None:
        host_latencies(self.bench.model, self.bench.inputs, WARMUP, self.bench.device)

    def _measure(self, kind: str) -> LatencyResult:
        if kind == "clean":
            self._warm()
            return self._blocks(2 * self.iterations)
        fault = self.faults[kind]
        if not fault.alive:
            raise RuntimeError(f"the injector {kind} has died")
        self._warm()
        fault.on()
        try:
            return self._blocks((BURST_RUN if kind == "gpu_bursts" else 1) * self.iterations)
        finally:
            fault.off()

    def _blocks(self, iterations: int) -> LatencyResult:
        run = self.bench.new_run(iterations)
        while not run.complete:
            self.watch.look()
            run.measure_block()
        self.watch.look()
        return run.result()

    def pair(self) -> None:
        """The same short run with and without looks, in random order: the cost of looking."""
        self._settle()
        self._warm()
        medians = {}
        for looks in random.sample([True, False], 2):
            run = self.bench.new_run(self.iterations)
            while not run.complete:
                if looks:
                    self.watch.look()
                run.measure_block()
            if looks:
                self.watch.look()
            self.watch.observations()
            result = run.result()
            medians["with" if looks else "without"] = {
                clock: {name: getattr(summary, name) for name in ("p50", "mean", "p95")}
                for clock, summary in (("host", result.host), ("gpu", result.gpu))
                if summary is not None
            }
        self.pairs.append(medians)

    def record(self, kind, round_index, seconds, result, observations, error="") -> None:
        """Keep a run and print a line about it."""
        index = len(self.runs)
        record = {"index": index, "kind": kind, "round": round_index, "seconds": seconds}
        record |= {"error": error, "tags": flags(observations)}
        record["observations"] = [asdict(o) for o in observations]
        if result is not None:
            for clock, summary in (("host", result.host), ("gpu", result.gpu)):
                if summary is not None:
                    self.samples[f"{index:03d}_{kind}_{clock}"] = summary.samples_ms
                    names = ("mean", "p50", "p95", "min", "max", "n")
                    record[clock] = {name: getattr(summary, name) for name in names}
            record["first_ms"] = float(np.median(result.host.samples_ms[:10]))
            record |= {"steady": result.steady, "warmup_used": result.warmup_used}
            record["retried_batches"] = result.retried_batches
        self.runs.append(record)
        told = " ".join(f"{c} {record[c]['p95']:.3f}" for c in ("host", "gpu") if c in record)
        print(
            f"{index:3d} {kind:14s} {seconds:5.1f} s  p95 {told}  {record['tags']} {error}",
            flush=True,
        )


def one_round(suite: Suite, tasks: list[str], index: int) -> None:
    """Do all tasks once, in random order."""
    for task in random.sample(tasks, len(tasks)):
        if task == "pair":
            try:
                suite.pair()
            except RuntimeError as problem:  # one pair fewer
                print(f"pair failed: {problem}")
        else:
            suite.run(task, index)


def ready_faults(faults: dict) -> tuple[list[str], dict[str, str]]:
    """Kinds that can be injected, and why the others cannot."""
    end = time.monotonic() + READY_S
    problems = {kind: f.wait_ready(max(0.1, end - time.monotonic())) for kind, f in faults.items()}
    missing = {kind: problem for kind, problem in problems.items() if problem}
    return [kind for kind in faults if kind not in missing], missing


def main() -> None:
    options = parse()
    start, outdir = time.monotonic(), Path(options.outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    random.seed(options.seed)
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    device = torch.device(options.device)
    cold = cold_runs(options.device, options.rounds, options.iterations)
    scratch = tempfile.TemporaryDirectory()  # the injectors' flags and logs
    faults = all_faults(Path(scratch.name), options.device)
    chosen = {name: value for name, value in vars(options).items() if name != "outdir"}
    facts = {"device": str(device), "torch": torch.__version__, "options": chosen}
    try:
        model = resnet18(num_classes=10).to(device)
        images = [torch.randn(1, 3, 32, 32) for _ in range(8)]
        with prepared(model, images, 50, device=device) as bench:
            watch = Watch(device)
            kinds, facts["missing"] = ready_faults(faults)
            print(f"ready after {time.monotonic() - start:.1f} s; missing: {facts['missing']}")
            suite = Suite(bench, watch, faults, options.iterations)
            for run in cold:
                suite.record(*run)
            tasks = [*kinds, *["clean"] * CLEAN, *["pair"] * PAIRS]
            longest, table = 0.0, "nothing was measured"
            for index in range(options.rounds):
                began = time.monotonic()
                if began - start + longest > options.limit_s:
                    print(f"time is up after {index} rounds")
                    break
                one_round(suite, tasks, index)
                facts["wall_s"] = time.monotonic() - start
                table = save(outdir, facts, suite)  # each round: a run that is cut off leaves data
                longest = max(longest, time.monotonic() - began)
            print(table)
    finally:
        for fault in faults.values():
            fault.close()
        scratch.cleanup()


def save(outdir: Path, facts: dict, suite: Suite) -> str:
    """Write everything measured so far; returns the table."""
    report = {**facts, "runs": suite.runs, "pairs": suite.pairs}
    (outdir / "interference.json").write_text(json.dumps(report, indent=1, ensure_ascii=False))
    np.savez_compressed(outdir / "interference.npz", **suite.samples)
    table = markdown(report)
    (outdir / "interference.md").write_text(table)
    return table


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("outdir")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="one short round, to try the script")
    parser.add_argument(
        "--limit-s", type=float, default=420.0, help="start no round that would end later"
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--iterations", type=int, default=100, help="per run; clean ones twice")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.iterations = 1, 40
    return options


if __name__ == "__main__":
    main()
