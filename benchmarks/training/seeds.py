"""Time and accuracy of the baseline's training over several seeds, on the real test set.

    python -m benchmarks.training.seeds FOLDER --data DIR    # five seeds on the test set
    python -m benchmarks.training.seeds FOLDER --data DIR --hold-out 5000    # recipes

FOLDER gets training.json, written after each training. Nothing is chosen by looking at test images:
recipes are compared on train images held out. Data are loaded once and not timed.
"""

import argparse
import tempfile
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import machine_facts, save
from helpers import cifar10, environment
from helpers.annex.training import Recipe, train
from helpers.models import measure_accuracy

MODEL, GOAL, GOAL_S = "resnet18_cifar", 0.945, 60
CANDIDATES = {
    "recipe": Recipe(),
    "no cutout": Recipe(cutout=0),
    "rate 0.4": Recipe(peak_rate=0.4),
    "decay 1e-3": Recipe(weight_decay=1e-3),
    "no smoothing": Recipe(label_smoothing=0.0),
}


def hold_out(data: cifar10.Cifar10, count: int) -> cifar10.Cifar10:
    """The last `count` train images in the place of the test set, which is dropped."""
    images, labels = data.train_images, data.train_labels
    return replace(
        data,
        train_images=images[:-count],
        train_labels=labels[:-count],
        test_images=images[-count:],
        test_labels=labels[-count:],
    )


def train_once(name: str, seed: int, data, batches: list, args: argparse.Namespace) -> dict:
    """Train and evaluate in strict FP32; what it took and gave, as JSON has it."""
    device = environment.look().device
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        result = train(
            *(MODEL, data),
            epochs=args.epochs,
            seed=seed,
            device=device,
            checkpoint=Path(scratch) / "checkpoint.pt",
            limit=args.limit,
            recipe=CANDIDATES[name],
        )
    wall_s = time.perf_counter() - start  # compilation and checkpoints are in it
    kept = {f.name: getattr(result, f.name) for f in fields(result) if f.name != "network"}
    kept |= {"recipe_name": name, "recipe": asdict(CANDIDATES[name]), "wall_s": wall_s}
    if device.type == "cuda":
        kept["peak_allocated_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
        torch.cuda.reset_peak_memory_stats(device)
    found = measure_accuracy(result.network, batches, device)
    plain = {"accuracy": found.fraction, "wilson_95": [found.low, found.high]}
    return kept | {"evaluation": {"images": found.images, "plain": plain}}


def tell(runs: list[dict]) -> None:
    """One line for each recipe: accuracies, and the longest training."""
    for name in dict.fromkeys(run["recipe_name"] for run in runs):
        mine = [run for run in runs if run["recipe_name"] == name]
        found = np.array([run["evaluation"]["plain"]["accuracy"] for run in mine])
        slowest = max(run["wall_s"] for run in mine)
        reached = found.min() >= GOAL and slowest <= GOAL_S
        print(
            f"{name}: {len(mine)} seeds, {found.mean():.2%} ({found.min():.2%} to {found.max():.2%}"
            f"), {slowest:.1f} s at most: goal {'' if reached else 'NOT '}reached"
        )


def main() -> None:
    """Train and evaluate seed after seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--limit", type=int, help="train images; default: all")
    parser.add_argument("--hold-out", type=int, default=0, help="compare recipes on train images")
    parser.add_argument("--candidates", nargs="*", choices=list(CANDIDATES))
    args = parser.parse_args()
    data = cifar10.load(args.data, args.dataset)
    data = hold_out(data, args.hold_out) if args.hold_out else data
    batches = list(cifar10.test_loader(data, 500))
    report = {"environment": machine_facts(), "data": data.fingerprint, "runs": []}
    report["evaluated_on"] = f"last {args.hold_out} train images" if args.hold_out else "test set"
    names = args.candidates or (list(CANDIDATES) if args.hold_out else ["recipe"])
    for seed, name in ((seed, name) for seed in range(args.seeds) for name in names):
        report["runs"].append(train_once(name, seed, data, batches, args))
        save(args.folder / "training.json", report)
        print(f"seed {seed}, {name}: {report['runs'][-1]['evaluation']}", flush=True)
    tell(report["runs"])


if __name__ == "__main__":
    main()
