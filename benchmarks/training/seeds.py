"""Time and accuracy of the baseline's training over several seeds, on the real test set.

    python -m benchmarks.training.seeds FOLDER --data DIR    # five seeds on the test set
    python -m benchmarks.training.seeds FOLDER --data DIR --hold-out 5000    # recipes

FOLDER gets training.json. Nothing is chosen by looking at test images: recipes are compared on
train images held out. Data are loaded once and timed apart.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from helpers import environment
from helpers.annex.training import Recipe, TrainingResult, train
from helpers.cifar10 import Cifar10, load_cifar10, test_loader
from helpers.models.accuracy import measure_accuracy, score

MODEL = "resnet18_cifar"
GOAL, GOAL_S = 0.945, 60
CANDIDATES = {
    "recipe": Recipe(),
    "no cutout": Recipe(cutout=0),
    "rate 0.4": Recipe(peak_rate=0.4),
    "decay 1e-3": Recipe(weight_decay=1e-3),
    "no smoothing": Recipe(label_smoothing=0.0),
}


def evaluate(result: TrainingResult, batches: list, device: torch.device) -> dict:
    """Accuracy in strict FP32, without and with the mirrored image's scores added."""
    plain = measure_accuracy(result.network, batches, device)
    mirrored = [(images.flip(3), labels) for images, labels in batches]
    both = plain.logits + measure_accuracy(result.network, mirrored, device).logits
    tta = score(both, plain.labels, plain.batch_size)
    found = {"images": plain.images, "batch_size": plain.batch_size}
    for name, one in (("plain", plain), ("flip_tta", tta)):
        found[name] = {"accuracy": one.fraction, "wilson_95": [one.low, one.high]}
    return found


def facts(result: TrainingResult, device: torch.device) -> dict:
    """What the training took, as JSON has it."""
    kept = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    del kept["network"]
    kept["train_s"] = result.train_s
    if device.type == "cuda":
        kept["peak_allocated_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
        torch.cuda.reset_peak_memory_stats(device)
    return kept


def hold_out(data: Cifar10, count: int) -> Cifar10:
    """The last `count` train images in the place of the test set, which is dropped."""
    images, labels = data.train_images, data.train_labels
    return dataclasses.replace(
        data,
        train_images=images[:-count],
        train_labels=labels[:-count],
        test_images=images[-count:],
        test_labels=labels[-count:],
    )


def tell(runs: list[dict], goal: bool) -> None:
    """One line for each recipe, and whether the goal was reached, checkpoints' writing counted."""
    for name in dict.fromkeys(run["recipe_name"] for run in runs):
        mine = [run for run in runs if run["recipe_name"] == name]
        plain, tta = (
            np.array([100 * run["evaluation"][kind]["accuracy"] for run in mine])
            for kind in ("plain", "flip_tta")
        )
        slowest = max(run["train_s"] + run["checkpoint_s"] for run in mine)
        print(
            f"{name}: {len(mine)} seeds, {mine[0]['epochs']} epochs, {plain.mean():.2f} % "
            f"({plain.min():.2f} to {plain.max():.2f}), mirrored too {tta.mean():.2f} %, "
            f"{slowest:.1f} s at most"
        )
        if goal:
            reached = plain.min() >= 100 * GOAL and slowest <= GOAL_S and len(mine) >= 5
            print("goal reached" if reached else "goal NOT reached")


def main() -> None:
    """Train and evaluate seed after seed; training.json is written after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--limit", type=int, help="train images; default: all")
    parser.add_argument("--hold-out", type=int, default=0, help="compare recipes on train images")
    parser.add_argument("--candidates", nargs="*", choices=list(CANDIDATES))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    start, choice = time.perf_counter(), environment.look()
    data = load_cifar10(args.data, "cifar10")
    data = hold_out(data, args.hold_out) if args.hold_out else data
    batches = list(test_loader(data, 500))
    report = {"environment": choice.facts, "runs": [], "data": data.fingerprint}
    report["evaluated_on"] = f"last {args.hold_out} train images" if args.hold_out else "test set"
    report["loading_s"] = time.perf_counter() - start
    names = args.candidates or (list(CANDIDATES) if args.hold_out else ["recipe"])
    for seed, name in ((seed, name) for seed in range(args.seeds) for name in names):
        with tempfile.TemporaryDirectory() as scratch:
            result = train(
                *(MODEL, data),
                epochs=args.epochs,
                seed=seed,
                device=choice.device,
                checkpoint=Path(scratch) / "checkpoint.pt",
                limit=args.limit,
                recipe=CANDIDATES[name],
            )
        run = facts(result, choice.device)
        run |= {"recipe_name": name, "recipe": vars(CANDIDATES[name])}
        run["evaluation"] = evaluate(result, batches, choice.device)
        report["runs"].append(run)
        text = json.dumps(report, indent=1, default=str, ensure_ascii=False)
        (args.folder / "training.json").write_text(text + "\n", encoding="utf8")
        print(f"seed {seed}, {name}: {run['train_s']:.1f} s, {run['evaluation']['plain']}")
    tell(report["runs"], goal=not args.hold_out)


if __name__ == "__main__":
    main()
