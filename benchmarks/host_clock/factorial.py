"""What steadies the host clock? A factorial in fresh processes, in random order.

    python -m benchmarks.host_clock.factorial FOLDER [--seconds 540]    # again: goes on
    python -m benchmarks.host_clock.factorial FOLDER --seconds 0        # only the table

Every process measures 2,000 samples of ResNet-18 as the product does; its first 500 are the shorter
run, so that this factor costs nothing. FOLDER gets processes.json, written after each process, and
table.md. The processes are forked from one that has imported torch but never touched CUDA.
"""

import argparse
import os
import time
from itertools import product
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks.common import forked, load, machine_facts, random_batches, save, share
from helpers.bench_latency import benchmark_latency
from helpers.environment.facts import first_line
from helpers.models import build_model
from helpers.stats import percentile, spread
from helpers.validation.interference import tags

CORES = ("free", "first", "quiet")  # not pinned; the core we start on; see `quiet_core`
WAITS = ("default", "spin")  # cudaDeviceScheduleSpin
QUEUES = ("unset", "4x")  # CUDA_SCALE_LAUNCH_QUEUES
CELLS = list(product(CORES, WAITS, QUEUES))
LENGTHS = (500, 2000)
LIMIT, TRIPLE = 0.10, 3


def siblings(core: int) -> frozenset[int]:
    """Logical CPUs of the same physical core, itself among them."""
    file = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    ends = [part.split("-") for part in file.read_text(encoding="utf8").strip().split(",")]
    return frozenset(cpu for pair in ends for cpu in range(int(pair[0]), int(pair[-1]) + 1))


def quiet_core() -> int:
    """The allowed core that was least busy for 0.2 s, with its siblings."""
    busy = dict(enumerate(psutil.cpu_percent(0.2, percpu=True)))
    return min(os.sched_getaffinity(0), key=lambda core: sum(busy[c] for c in siblings(core)))


def make_context(wait: str) -> int:
    """Make torch's CUDA context wait as asked; returns the flags that it has (1: spin).

    By the driver: torch and its CUDA runtime then share the primary context that was set up here.
    """
    from cuda.bindings import driver

    driver.cuInit(0)
    spin = int(driver.CUctx_flags.CU_CTX_SCHED_SPIN)
    for _ in range(2):  # before torch has its context and, should torch have reset it, after
        if wait == "spin":
            driver.cuDevicePrimaryCtxSetFlags(0, spin)
        torch.zeros(1, device="cuda")
    _, flags, active = driver.cuDevicePrimaryCtxGetState(0)
    if not active or (wait == "spin") != bool(flags & spin):
        raise RuntimeError(f"asked for {wait}, the context has the flags {flags}")
    return flags


def measure(cell: tuple[str, str, str], device: str, samples: int) -> dict:
    """One fresh process: set up the cell, measure, and say what was done and seen."""
    core, wait, queue = cell
    if queue != "unset":
        os.environ["CUDA_SCALE_LAUNCH_QUEUES"] = queue  # read when CUDA starts
    start, flags = time.perf_counter(), None
    if device == "cuda":
        flags = make_context(wait)
    chosen = {"free": None, "first": psutil.Process().cpu_num(), "quiet": quiet_core()}[core]
    if chosen is not None:
        os.sched_setaffinity(0, {chosen})  # this thread alone: the driver's have started
    model = build_model("resnet18", 0).to(device)
    run = benchmark_latency(model, random_batches(), measure_iters=samples, clock="host")
    short = min(LENGTHS[0], samples)
    return {
        "p95_ms": [percentile(run.host.samples_ms[:n], 0.95) for n in (short, samples)],
        "p50_ms": run.host.p50,
        "mean_ms": run.host.mean,
        "quarters_p95_ms": [percentile(q, 0.95) for q in np.array_split(run.host.samples_ms, 4)],
        "core": chosen,
        "siblings": len(siblings(chosen)) if chosen is not None else None,
        "flags": flags,
        "tags": tags([run])[0].codes,
        "seconds": time.perf_counter() - start,
    }


def take(folder: Path, each: int, seconds: float, device: str, samples: int, limit: int) -> list:
    """Measure what is not on disk yet, in an order that is always the same; returns all."""
    began, file = time.monotonic(), folder / "processes.json"
    done = load(file) if file.exists() else {"environment": forked(machine_facts), "processes": []}
    order = np.random.default_rng(0).permutation([*range(len(CELLS))] * each)
    for cell in (CELLS[i] for i in order[len(done["processes"]) : limit]):
        if time.monotonic() - began > seconds:
            break
        record = {"cell": cell, "at_s": time.time()}
        try:
            record |= forked(measure, cell, device, samples)
        except Exception as error:  # kept: a cell that cannot be measured is an answer too
            record["error"] = first_line(error)
        done["processes"].append(record)
        save(file, done)
        print(len(done["processes"]), *cell, record.get("p95_ms", record.get("error")), flush=True)
    return done["processes"]


def row(name: tuple[str, ...], cells: list[list[float]]) -> str:
    """A line of the table; `cells` (processes,) of p95 in ms, no triple mixes two of them."""
    starts = ((values, i) for values in cells for i in range(len(values) - TRIPLE + 1))
    spreads = np.array([spread(values[i : i + TRIPLE]) for values, i in starts])
    levels = [value for values in cells for value in values]
    found = ["–"] * 4
    if spreads.size:
        found = [f"{np.median(levels):.3f}", f"{np.median(spreads):.1%}", f"{spreads.max():.1%}"]
        found.append(share(int((spreads < LIMIT).sum()), spreads.size))
    return f"| {' | '.join((*name, str(len(levels)), *found))} |"


def table(processes: list[dict]) -> str:
    """Markdown: every cell, then every level of every factor over all cells that have it."""
    header = "core, waiting, queue, samples, processes, median p95 (ms), median spread of three"
    header = [*f"{header}, worst, three in a row under 10 %".split(", ")]
    p95 = {
        (*cell, str(n)): [
            p["p95_ms"][i] for p in processes if tuple(p["cell"]) == cell and "p95_ms" in p
        ]
        for cell in CELLS
        for i, n in enumerate(LENGTHS)
    }
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    lines += [row(cell, [values]) for cell, values in p95.items()]
    for place, levels in enumerate((CORES, WAITS, QUEUES, map(str, LENGTHS))):
        for one in levels:
            name = *["all"] * place, one, *["all"] * (3 - place)
            lines.append(row(name, [v for cell, v in p95.items() if cell[place] == one]))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure while the time lasts, then write the table of what there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=10, help="processes per cell")
    parser.add_argument("--seconds", type=float, default=540, help="no process starts after this")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--samples", type=int, default=LENGTHS[1])
    parser.add_argument("--limit", type=int, help="processes in all, to try the script")
    given = vars(parser.parse_args())
    text = table(take(**given))
    (given["folder"] / "table.md").write_text(text, encoding="utf8")
    print(text)


if __name__ == "__main__":
    main()
