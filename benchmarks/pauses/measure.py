"""Latency after a pause: is it idleness that costs, the CPU's or the GPU's?

    python -m benchmarks.pauses.measure FOLDER

FOLDER gets pauses.json, written after each fresh process; called again, it goes on. At the end it
gets latence_pauses.png, the notebook's figure of "asleep". Each process takes all conditions, in an
order of its own: every forward of the annex's measurement, and the day's host clock. The variants
are not guarded here: the notebook's annex does that.
"""

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.common import load, machine_facts, random_batches, save
from helpers.annex.comparison import Contribution
from helpers.annex.pauses import Forward, Paused, measure_process
from helpers.annex.plots import plot_pauses
from helpers.bench_latency import benchmark_latency
from helpers.clocks.kernels import synchronizer
from helpers.models import build_model
from helpers.parameters import validate
from helpers.validation.processes import in_fresh_process, pack_model, unpack_model


def spin(seconds: float) -> None:
    """Keep the CPU busy instead of sleeping."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


LONGEST, AWAKE_S = 1000, 0.001
CONDITIONS = {  # pauses (ms), how they pass, is the GPU's state read in them, is there a neighbour
    "asleep": ((0, 1, 10, 100, LONGEST), time.sleep, True, False),
    "busy_wait": ((0, LONGEST), spin, True, False),
    "neighbour": ((0, LONGEST), time.sleep, True, True),
    "read_after": ((LONGEST,), time.sleep, False, False),
}


def keep_awake(device: torch.device, ready) -> None:
    """Add to a small tensor every other millisecond: the GPU is never idle for long."""
    small, synchronize = torch.zeros(1024, device=device), synchronizer(device)
    while True:
        small.add_(1)
        synchronize()
        ready.set()
        time.sleep(AWAKE_S)


@contextmanager
def neighbour(device: torch.device) -> Iterator[None]:
    """Another process that keeps the GPU awake."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=keep_awake, args=(device, ready), daemon=True)
    process.start()
    try:
        if not ready.wait(120):
            raise RuntimeError("the neighbour did not start within 120 s")
        yield
    finally:
        process.kill()
        process.join()


def take(packed, inputs, names, device, parameters, number: int) -> dict:
    """All conditions in this process, and the day's host clock of fp32."""
    found, iterations = {}, (parameters.warmup_iters, parameters.measure_iters)
    for name in np.random.default_rng(number).permutation([*CONDITIONS, "day"]).tolist():
        began = time.perf_counter()
        if name == "day":
            model = unpack_model(packed).to(device)
            run = benchmark_latency(model, inputs, *iterations, device=device, clock="host")
            found[name] = {"host_ms": run.host.samples_ms.tolist()}
        else:
            pauses, wait, before, shared = CONDITIONS[name]
            given = (packed, inputs, names, device, parameters, number, pauses, wait, before)
            with neighbour(device) if shared else nullcontext():
                found[name] = asdict(measure_process(*given))
        found[name]["seconds"] = time.perf_counter() - began
    return found


def figure(record: dict) -> Figure | str:
    runs = [process["asleep"]["runs"].items() for process in record["processes"]]
    given = [Contribution({n: [Forward(**f) for f in run] for n, run in of}) for of in runs]
    names, pauses = tuple(record["variants"]), tuple(map(float, CONDITIONS["asleep"][0]))
    return plot_pauses(Paused(given, names=names, pauses_ms=pauses), "random")


def main() -> None:
    """Measure process after process; what is lost is one process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--names", nargs="+", default=["fp32", "cudagraph"], help="fp32 first")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--iterations", type=int, default=500)
    args = parser.parse_args()
    file = args.folder / "pauses.json"
    new = {"environment": machine_facts(), "variants": args.names, "processes": []}
    record = load(file) if file.exists() else new
    given = pack_model(build_model("resnet18", 0)), random_batches(), args.names
    given += torch.device(args.device), validate(measure_iters=args.iterations)
    for number in range(len(record["processes"]) + 1, args.processes + 1):
        record["processes"].append(in_fresh_process(take, *given, number))
        save(file, record)
        print(*(f"{n} {of['seconds']:.1f} s" for n, of in record["processes"][-1].items()))
    if isinstance(drawn := figure(record), Figure):
        drawn.savefig(args.folder / "latence_pauses.png")


if __name__ == "__main__":
    main()
