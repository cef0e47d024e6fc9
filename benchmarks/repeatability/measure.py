"""Everything that the protocol claims about the two clocks, measured again in under 9 minutes.

    python -m tests.gpu.reference FOLDER                  # all of it
    python -m tests.gpu.reference FOLDER --only repeat    # the fresh processes alone

FOLDER gets reference.json (figures and the environment), samples.npz (every raw sample) and
reference.md (the tables). Each measurement has a process and a CUDA context of its own, forked from
a server that has imported torch but never touched the GPU; nothing else may run on the machine.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from tests.gpu.summary import write
from tests.gpu.workers import WORKERS

PROCESSES, COMPARED = 20, 8


def plan(processes: int) -> list[tuple[str, int, bool]]:
    """What is measured, in order: (worker, seed, all methods?)."""
    random = np.random.default_rng(0)
    compared = set(random.choice(processes, min(COMPARED, processes), replace=False).tolist())
    return [
        ("environment", 0, False),
        ("calibrate", 0, False),
        *(("repeat", i, i in compared) for i in range(processes)),
        ("calibrate", 1, False),
        ("default", 0, False),
        ("layout", 0, False),
    ]


def run_fresh(context, worker: str, seed: int, compare: bool) -> tuple[dict, dict]:
    """Run one worker in a process of its own; returns (settings, samples)."""
    start = time.perf_counter()
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        settings, samples = pool.submit(WORKERS[worker], seed, compare).result()
    return settings | {"process_s": time.perf_counter() - start}, samples


def main() -> None:
    """Run the workers one after the other and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=list(WORKERS), action="append")
    parser.add_argument("--no-compare", action="store_true")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.gpu.workers"])
    start, found = time.perf_counter(), {worker: [] for worker in WORKERS}
    for worker, seed, compare in plan(args.processes):
        if not args.only or worker in args.only:
            compare = compare and not args.no_compare
            found[worker].append(run_fresh(context, worker, seed, compare))
            print(f"{time.perf_counter() - start:6.1f} s  {worker} {seed}", flush=True)
            write(args.folder, found)  # after each: what is lost is one process
    print((args.folder / "reference.md").read_text(encoding="utf8"))
    print(f"total {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
