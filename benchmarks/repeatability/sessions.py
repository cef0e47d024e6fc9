"""Sessions one after the other, each of fresh processes, as the notebook measures them.

    python -m benchmarks.repeatability.sessions FOLDER --sessions 12 --runs 3
    python -m benchmarks.repeatability.sessions FOLDER --sessions 6 --runs 8

FOLDER, one per machine, gets sessions_of_3.json and so on, written after each session; called
again, it goes on. Every process's figures are kept; `benchmarks.repeatability.coverage` reads them.
"""

import argparse
import time
from pathlib import Path

import torch

from benchmarks.common import load, machine_facts, random_batches, save
from helpers.bench_latency import Run
from helpers.models import build_model
from helpers.parameters import Parameters, validate
from helpers.stats import LatencySummary, summarise
from helpers.validation import measure_runs
from helpers.validation.interference import tags


def figures(summary: LatencySummary | None) -> dict | None:
    """The figures of one process and clock, in ms."""
    return summary and {name: getattr(summary, name) for name in ("mean", "p50", "p95")}


def told(run: Run, codes: tuple[str, ...]) -> dict:
    """What is kept of a run: both clocks, the same model as a CUDA graph, what was seen."""
    graph = run.graph
    replayed = graph is not None and graph.samples_ms is not None
    return {
        "gpu": figures(run.gpu),
        "host": figures(run.host),
        "graph": figures(summarise(graph.samples_ms)) if replayed else None,
        "launches": graph.launches if graph else None,
        "samples": run.host.n,
        "steady": run.warmup.steady,
        "tags": codes,
        "pid": run.process.pid,
    }


def session(parameters: Parameters, device: torch.device) -> dict:
    """One session: its runs, and when and how long it was measured."""
    start, at_s = time.perf_counter(), time.time()
    model = build_model("resnet18", parameters.seed)
    runs = list(measure_runs(model, random_batches(), parameters, device))
    kept = [told(run, seen.codes) for run, seen in zip(runs, tags(runs), strict=True)]
    return {"at_s": at_s, "wall_s": time.perf_counter() - start, "runs": kept}


def main() -> None:
    """Measure sessions while the time lasts; what is lost when the machine goes is one session."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sessions", type=int, default=12)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=560, help="no session would end later")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--iterations", type=int, default=500)
    args = parser.parse_args()
    began, longest = time.monotonic(), 0.0
    parameters = validate(runs=args.runs, measure_iters=args.iterations, isolation="process")
    file = args.folder / f"sessions_of_{args.runs}.json"
    record = load(file) if file.exists() else {"environment": machine_facts(), "sessions": []}
    for number in range(len(record["sessions"]) + 1, args.sessions + 1):
        if time.monotonic() - began + longest > args.seconds:
            break
        found = session(parameters, torch.device(args.device))
        longest = max(longest, found["wall_s"])
        record["sessions"].append(found)
        save(file, record)
        p95 = [run["gpu" if run["gpu"] else "host"]["p95"] for run in found["runs"]]
        print(f"session {number}, {found['wall_s']:.1f} s: {p95}", flush=True)


if __name__ == "__main__":
    main()
