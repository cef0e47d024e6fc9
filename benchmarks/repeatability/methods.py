"""The same work timed by six methods, each as its users use it, three times in each fresh process.

    python -m benchmarks.repeatability.methods FOLDER [--processes 8]

FOLDER gets methods/reference.json (every repeated figure) and methods/samples.npz (every sample),
written after each process, and side_by_side.png. Nothing else may run on the machine.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.common import forked, machine_facts, random_batches, save
from helpers.bench_latency import benchmark_latency, move_inputs
from helpers.clocks import GpuClock, host_latencies
from helpers.clocks.conditions import measuring_conditions
from helpers.display.french import percent
from helpers.display.plots.style import COLOURS, GREY, STYLE, finish, new_figure
from helpers.models import build_model
from helpers.stats import percentile, spread

REPEATS, LIMIT = 3, 0.10
FLUSH_BYTES = 256 * 2**20  # five times the 50 MB L2 of an H100
J1 = {"p95, J1 host clock": "host", "p95, J1 GPU clock": "gpu"}
MEDIAN = "median, torch Timer (block means)"  # a block's mean hides the tail
FRENCH = {
    "p95, plain protocol": "p95, protocole simple (500 × horloge hôte + synchronize)",
    "p95, Triton do_bench": "p95, `triton.testing.do_bench` (700 ms, L2 vidé)",
    MEDIAN: "médiane, `torch.utils.benchmark.Timer` (0,8 s)",
    "p95, J1 host clock": "p95, J1, horloge hôte",
    "p95, J1 GPU clock": "p95, J1, horloge GPU",
    "p95, J1 GPU clock, L2 flushed": "p95, J1, horloge GPU, L2 vidé avant chaque passage",
}

Samples = dict[str, list[np.ndarray]]  # by method, of each repeat: (n,) ms


def plain(model, inputs, device) -> np.ndarray:
    """The plain protocol: 50 warm-up forwards, 500 x (host clock, forward, synchronize)."""
    host_latencies(model, inputs, 50, device)
    return host_latencies(model, inputs, 500, device)


def do_bench(model, inputs, device) -> np.ndarray:
    """Triton's do_bench, 700 ms: events around each call, L2 flushed, the queue not kept full."""
    from triton.testing import do_bench as run

    return np.array(run(lambda: model(inputs[0]), rep=700, return_mode="all"))


def torch_timer(model, inputs, device) -> np.ndarray:
    """torch's Timer.blocked_autorange, 0.8 s: means of blocks."""
    from torch.utils.benchmark import Timer  # touches the GPU when imported: not in the fork server

    timer = Timer("model(x)", globals={"model": model, "x": inputs[0]})
    return np.array(timer.blocked_autorange(min_run_time=0.8).times) * 1e3


def gpu_clock_cold_l2(model, inputs, device) -> np.ndarray:
    """This project's GPU clock with the L2 flushed before every forward, outside the sample."""
    buffer = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device)
    return GpuClock(device, before=buffer.zero_).measure(model, inputs, 200).samples_ms


OTHERS = {
    "p95, plain protocol": plain,
    "p95, Triton do_bench": do_bench,
    MEDIAN: torch_timer,
    "p95, J1 GPU clock, L2 flushed": gpu_clock_cold_l2,
}


def of_j1(model, batches, precision: str = "fp32") -> Samples:
    """Three consecutive runs as the notebook makes them, both clocks."""
    found = {name: [] for name in J1}
    for _ in range(REPEATS):
        run = benchmark_latency(model, batches, precision=precision)
        for name, clock in J1.items():
            found[name] += [getattr(run, clock).samples_ms] if getattr(run, clock) else []
    return found


def process(seed: int, device: str, names: list[str], precision: str = "fp32") -> Samples:
    """One fresh process: J1 and the other methods named, in random order."""
    found, where, model = {}, torch.device(device), build_model("resnet18", 0).to(device)
    inputs = move_inputs(random_batches(), where)
    for name in np.random.default_rng(seed).permutation(["J1", *names]).tolist():
        if name == "J1":
            found |= of_j1(model, inputs, precision)
            continue
        with measuring_conditions(model, precision):
            host_latencies(model, inputs, 50, where)
            found[name] = [OTHERS[name](model, inputs, where) for _ in range(REPEATS)]
    return found


def repeated(samples: Samples) -> dict[str, list[float]]:
    """The figure (ms) that each method repeats: its p95, or its median."""
    return {
        name: [percentile(one, 0.5 if name == MEDIAN else 0.95) for one in found]
        for name, found in samples.items()
    }


@rc_context(STYLE)
def plot(rows: list[dict]) -> Figure:
    """Spread of three repeats of every method, a dot per process, the steadiest on top."""
    spreads = {row["name"]: [spread(v) for v in row["values_ms"]] for row in rows}
    names = sorted(spreads, key=lambda name: np.median(spreads[name]))
    figure = new_figure(0.5 * len(names) + 1.5)
    axis, told = figure.subplots(), []
    for position, name in enumerate(names):
        found = spreads[name]
        colour = COLOURS["gpu" if "GPU clock" in name else "host"] if "J1" in name else GREY
        heights = position + np.linspace(-0.25, 0.25, len(found))
        axis.plot(found, heights, "o", color=colour, alpha=0.7, markersize=4.5, mew=0)
        axis.plot([np.median(found)] * 2, [position - 0.35, position + 0.35], color=colour, lw=2)
        met = f"{sum(s < LIMIT for s in found)} sur {len(found)} sous {percent(LIMIT)}"
        told.append(f"{FRENCH[name]} : médian {percent(np.median(found))}, {met}")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: percent(value, 1))
    axis.set_xlabel("(max − min) / moyenne de trois répétitions, un point par processus")
    axis.set_yticks(range(len(names)), [FRENCH[name].replace("`", "") for name in names])
    axis.invert_yaxis()
    axis.axvline(LIMIT, color=GREY, linestyle="--", linewidth=0.8)
    title = "Le même travail répété trois fois, par plusieurs méthodes"
    return finish(figure, title, " ; ".join(told))


def main() -> None:
    """Measure process after process; what is lost when the machine goes is one process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--names", nargs="*", default=list(OTHERS), help="beside J1's own clocks")
    args = parser.parse_args()
    file, kept = args.folder / "methods" / "reference.json", {}
    default = repeated(forked(process, 0, args.device, [], "default"))
    figures = {"pytorch_default": {clock: default[name] for name, clock in J1.items()}}
    record = {"environment": forked(machine_facts), "figures": figures}
    values = {name: [] for name in FRENCH if name in J1 or name in args.names}
    for seed in range(args.processes):
        samples = forked(process, seed, args.device, args.names)
        kept |= {f"{seed}/{n}_{k}": s for n, found in samples.items() for k, s in enumerate(found)}
        for name, found in repeated(samples).items():
            values[name] += [found] if found else []
        figures["side_by_side"] = [{"name": n, "values_ms": v} for n, v in values.items() if v]
        save(file, record)
        np.savez_compressed(file.with_name("samples.npz"), **kept)
        print(f"process {seed + 1} of {args.processes}", flush=True)
    drawn = plot(figures["side_by_side"])
    drawn.savefig(args.folder / "side_by_side.png", metadata={"Description": drawn.get_label()})


if __name__ == "__main__":
    main()
