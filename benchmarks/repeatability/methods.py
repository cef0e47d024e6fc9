"""The same work timed three times in a row by several methods: how far apart are the three?

    python -m benchmarks.repeatability.methods FOLDER

FOLDER gets methods.json, written after each fresh process, and side_by_side.png. Each process takes
the methods in a random order of its own. Called again, it goes on, and draws anew.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import forked, load, machine_facts, random_batches, save
from helpers.bench_latency import benchmark_latency
from helpers.clocks import host_latencies
from helpers.clocks.checks import move_inputs
from helpers.display.colours import COLOURS, GREY
from helpers.display.french import percent
from helpers.display.plots.style import new_figure
from helpers.models import build_model
from helpers.stats import percentile, spread

ITERATIONS, REPEATS = 500, 3
P95 = ["gpu", "host", "plain", "do_bench"]  # torch's Timer gives means of blocks: of it, the median
LABELS = {
    "gpu": "J1, horloge GPU",
    "host": "J1, horloge hôte",
    "plain": "protocole simple",
    "timer": "torch Timer\n(médiane de moyennes)",
    "do_bench": "Triton do_bench",
}


def j1(model: Callable, batches: list) -> dict[str, np.ndarray]:
    """This project: both clocks, after its warm-up."""
    run = benchmark_latency(model, batches, measure_iters=ITERATIONS)
    return {"gpu": run.gpu.samples_ms, "host": run.host.samples_ms}


def plain(model: Callable, inputs: list) -> dict[str, np.ndarray]:
    """50 warm-up forwards, then 500 times (host clock, forward, synchronise)."""
    host_latencies(model, inputs, 50, inputs[0].device)
    return {"plain": host_latencies(model, inputs, ITERATIONS, inputs[0].device)}


def do_bench(model: Callable, inputs: list) -> dict[str, np.ndarray]:
    """Triton's do_bench, 700 ms: events around each call, L2 cleared, queue not kept full."""
    from triton.testing import do_bench as run

    return {"do_bench": np.array(run(lambda: model(inputs[0]), rep=700, return_mode="all"))}


def timer(model: Callable, inputs: list) -> dict[str, np.ndarray]:
    """torch's Timer.blocked_autorange, 0.8 s: means of blocks of forwards."""
    from torch.utils.benchmark import Timer  # touches the GPU when imported: not in the fork server

    found = Timer("model(x)", globals={"model": model, "x": inputs[0]})
    return {"timer": np.array(found.blocked_autorange(min_run_time=0.8).times) * 1e3}


def measure(number: int) -> dict[str, list[float]]:
    """In this process, by method: the figure (ms) of each of three repetitions."""
    device, figures = torch.device("cuda"), {}
    model = build_model("resnet18", 0).to(device).eval()
    inputs = move_inputs(random_batches(), device)
    methods = [j1, plain, do_bench, timer]
    torch.backends.cudnn.allow_tf32 = False  # as J1 itself: the same work for all
    with torch.inference_mode():
        for index in np.random.default_rng(number).permutation(len(methods)):
            for _ in range(REPEATS):
                for name, samples in methods[index](model, inputs).items():
                    q = 0.95 if name in P95 else 0.5
                    figures.setdefault(name, []).append(float(percentile(samples, q)))
    return figures


def plot(processes: list[dict[str, list[float]]]):
    """A dot per method and process: the spread of its three repetitions."""
    spreads = {name: [spread(found[name]) for found in processes] for name in LABELS}
    figure = new_figure(4.2)
    axis, labels = figure.subplots(), []
    for row, (name, values) in enumerate(spreads.items()):
        colour = COLOURS.get(name, GREY)
        heights = row + np.linspace(-0.25, 0.25, len(values))
        axis.scatter(values, heights, s=18, color=colour, alpha=0.7)
        axis.plot([np.median(values)] * 2, [row - 0.35, row + 0.35], color=colour, linewidth=2.5)
        worst = max(values)
        axis.annotate(f"  au pire {percent(worst)}", (worst, row), color=GREY, va="center")
        below = sum(value < 0.1 for value in values)
        labels.append(f"{LABELS[name]}\n< 10 % : {below} sur {len(values)}")
    axis.axvline(0.1, color=GREY, linestyle="--")
    axis.set_xscale("log")
    ends = axis.get_xlim()
    axis.set_xlim(ends[0], 4 * ends[1])
    axis.xaxis.set_major_formatter(lambda value, _: percent(value, 1))
    axis.set_yticks(range(len(labels)), labels)
    axis.invert_yaxis()
    axis.set_xlabel("(max − min) / moyenne de trois répétitions, par processus (trait : médiane)")
    figure.suptitle("Le même travail, trois fois de suite : écart", x=0.01, ha="left")
    return figure


def main() -> None:
    """Measure in process after process, then draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=8)
    args = parser.parse_args()
    file = args.folder / "methods.json"
    record = load(file) if file.exists() else {"environment": forked(machine_facts)}
    done = record.setdefault("processes", [])
    for number in range(len(done), args.processes):
        done.append(forked(measure, number))
        save(file, record)
        print(done[-1], flush=True)
    plot(done).savefig(args.folder / "side_by_side.png")


if __name__ == "__main__":
    main()
