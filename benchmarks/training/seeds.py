"""Time and accuracy of the baseline's training over several seeds, on the real test set.

    python -m benchmarks.training.seeds FOLDER --data DIR
    python -m benchmarks.training.seeds FOLDER --data DIR --held-out --recipe '{"cutout": 8}'

FOLDER gets training.json, written after each training. Data are loaded once and not timed. A recipe
is chosen with --held-out: trained on 45,000 train images, evaluated on the other 5,000.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

from benchmarks.common import machine_facts, save
from helpers import cifar10, environment
from helpers.annex.training import Recipe, train
from helpers.models import measure_accuracy

MODEL, HELD_OUT_FROM = "resnet18_cifar", 45_000


def train_once(seed: int, data, batches: list, args: argparse.Namespace) -> dict:
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
            limit=HELD_OUT_FROM if args.held_out else None,
            recipe=args.recipe,
        )
    wall_s = time.perf_counter() - start  # capture and checkpoints are in it
    kept = {f.name: getattr(result, f.name) for f in fields(result) if f.name != "network"}
    found = measure_accuracy(result.network, batches, device)
    plain = {"accuracy": found.fraction, "wilson_95": [found.low, found.high]}
    kept |= {"evaluation": {"images": found.images, "plain": plain}}
    return kept | {"recipe": asdict(args.recipe), "wall_s": wall_s}


def main() -> None:
    """Train and evaluate seed after seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--held-out", action="store_true", help="never look at the test images")
    parser.add_argument("--recipe", type=lambda text: Recipe(**json.loads(text)), default=Recipe())
    args = parser.parse_args()
    data = cifar10.load(args.data, "cifar10")
    scored = data
    if args.held_out:
        images, labels = data.train_images[HELD_OUT_FROM:], data.train_labels[HELD_OUT_FROM:]
        scored = replace(data, test_images=images, test_labels=labels)
    batches = list(cifar10.test_loader(scored, 500))
    report = {"environment": machine_facts(), "data": data.fingerprint, "runs": []}
    for seed in range(args.seeds):
        report["runs"].append(train_once(seed, data, batches, args))
        save(args.folder / "training.json", report)
        print(f"seed {seed}: {report['runs'][-1]['evaluation']}", flush=True)


if __name__ == "__main__":
    main()
