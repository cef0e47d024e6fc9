"""Latency after a pause: is it idleness that costs, the CPU's or the GPU's?

    python -m benchmarks.pauses.measure FOLDER

FOLDER gets pauses.json, written after each fresh process; called again, it goes on. Each process
takes all conditions, in an order of its own: every forward of the annex's measurement, and the
day's host clock. The variants are not guarded here: the notebook's annex does that.
"""

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import load, machine_facts, random_batches, save
from helpers.annex.pauses import measure_process
from helpers.bench_latency import benchmark_latency
from helpers.clocks.kernels import synchronizer
from helpers.models import build_model
from helpers.parameters import validate
from helpers.stats import replicate_interval
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


def medians(record: dict, condition: str, variant: str, pause: float, column: str) -> np.ndarray:
    """Median of one column after one pause, by process; NaN where it was not observable."""
    runs = (process[condition]["runs"].get(variant, []) for process in record["processes"])
    columns = [[f[column] for f in run if f["pause_ms"] == pause] for run in runs]
    return np.array([np.median(of) if of and None not in of else np.nan for of in columns])


def level(values: np.ndarray) -> str:
    """Geometric mean, with the 95 % interval over processes where there are three."""
    values = values[np.isfinite(values)]
    ends = replicate_interval(values) if values.size > 2 else ()
    told = f"{np.exp(np.log(values).mean()):.4g}" if values.size else "–"
    return told + (f" ({ends[0]:.4g}–{ends[1]:.4g})" if ends else "")


HEADER = ["variant", "while", "pause (ms)", "host p50 (ms)", "over pause 0", "GPU p50 (ms)"]
HEADER += ["over pause 0", "SM (MHz)", "state"]


def rows(record: dict) -> Iterator[list[str]]:
    """After each pause, both clocks' medians and their ratios to pause 0, and the GPU's state."""
    for variant, (name, (pauses, *_)) in product(record["variants"], CONDITIONS.items()):
        for pause in pauses:
            row = [f"`{variant}`", name, f"{pause}"]
            for column in ("host_ms", "gpu_ms"):
                after = medians(record, name, variant, pause, column)
                zero = medians(record, name if 0 in pauses else "asleep", variant, 0, column)
                row += [level(after), level(after / zero) if pause else "1"]
            state = medians(record, name, variant, pause, "p_state")
            state = "–" if np.isnan(state).any() else f"P{state.max():.0f}"
            yield [*row, level(medians(record, name, variant, pause, "sm_mhz")), state]


def agreement(record: dict) -> str:
    """Pause 0 over the day's host clock, and over the forward just before it, same process."""
    at = record, "asleep", record["variants"][0], 0
    day = np.array([np.median(process["day"]["host_ms"]) for process in record["processes"]])
    host, before = (medians(*at, column) for column in ("host_ms", "before_ms"))
    told = f"over the forward just before: {level(host / before)}"
    return f"Pause 0 over the day's host clock in the same process: {level(host / day)}; {told}."


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
    record = {"environment": machine_facts(), "variants": args.names, "processes": []}
    record = load(file) if file.exists() else record
    given = pack_model(build_model("resnet18", 0)), random_batches(), args.names
    given += torch.device(args.device), validate(measure_iters=args.iterations)
    for number in range(len(record["processes"]) + 1, args.processes + 1):
        record["processes"].append(in_fresh_process(take, *given, number))
        save(file, record)
        print(*(f"{n} {of['seconds']:.1f} s" for n, of in record["processes"][-1].items()))
    print(*(" | ".join(row) for row in rows(record)), agreement(record), sep="\n")


if __name__ == "__main__":
    main()
