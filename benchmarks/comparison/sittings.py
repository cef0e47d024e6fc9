"""Comparisons of variants, several in a row, each over fresh processes as the annex makes them.

    python -m benchmarks.comparison.sittings FOLDER --sittings 2 --processes 6

FOLDER, one per machine, gets sitting_1.json and so on, written after each process; called again,
it goes on. The ratios of every round are kept; `benchmarks.comparison.agree` reads
them. The variants are not guarded here: the notebook's annex does that.
"""

import argparse
import time
from pathlib import Path

import torch

from benchmarks.common import load, machine_facts, random_batches, save
from helpers.annex.comparison import CLOCKS, REFERENCE, Contribution, round_ratios
from helpers.annex.comparison.process import measure_process
from helpers.models import build_model
from helpers.parameters import validate
from helpers.validation.processes import in_fresh_process, pack_model

NAMES = ("fp32", "tf32", "fp16", "cudagraph", "fp16+channels_last+cudagraph", "cudagraph_tuned")


def told(given: Contribution, seconds: float) -> dict:
    """What is kept of a process, by clock and entry: the ratios of its rounds, p95 (ms)."""
    kept = {"seconds": seconds, "failed": given.failed, "rounds": {}, "p95_ms": {}}
    reference = given.runs[REFERENCE]
    for clock in CLOCKS:
        if getattr(reference, clock) is None:
            continue
        runs = {name: run for name, run in given.runs.items() if getattr(run, clock)}
        kept["p95_ms"][clock] = {n: getattr(r, clock).p95 for n, r in runs.items()}
        runs.pop(REFERENCE)
        rounds = {n: round_ratios(r, reference, clock).tolist() for n, r in runs.items()}
        kept["rounds"][clock] = rounds
    return kept


def main() -> None:
    """Measure process after process while the time lasts; what is lost is one process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sittings", type=int, default=2)
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--names", nargs="+", default=NAMES, help="fp32 first")
    parser.add_argument("--seconds", type=float, default=560, help="no process would end later")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--iterations", type=int, default=500)
    args = parser.parse_args()
    began, longest = time.monotonic(), 0.0
    packed, facts = pack_model(build_model("resnet18", 0)), machine_facts()
    for sitting in range(1, args.sittings + 1):
        file = args.folder / f"sitting_{sitting}.json"
        record = load(file) if file.exists() else {"environment": facts, "processes": []}
        parameters = validate(
            measure_iters=args.iterations, compare_processes=args.processes, seed=sitting
        )
        given = (packed, random_batches(), args.names, torch.device(args.device), parameters)
        for number in range(len(record["processes"]) + 1, args.processes + 1):
            if time.monotonic() - began + longest > args.seconds:
                return
            start = time.perf_counter()
            found = in_fresh_process(measure_process, *given, number)
            record["processes"].append(told(found, time.perf_counter() - start))
            longest = max(longest, record["processes"][-1]["seconds"])
            save(file, record)
            print(sitting, number, f"{longest:.0f} s", flush=True)


if __name__ == "__main__":
    main()
