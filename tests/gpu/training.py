"""The baseline's training, shown: time and accuracy of several seeds on the real test set.

    python -m tests.gpu.training FOLDER --data DIR                  # epochs that fit, five seeds
    python -m tests.gpu.training FOLDER --data DIR --quick          # times, memory, a profile
    python -m tests.gpu.training FOLDER --data DIR --hold-out 5000  # recipes, without the test set

FOLDER gets training.json. Nothing is chosen by looking at test images: epochs are fitted to a time,
and recipes are compared on train images held out. Data are loaded once and timed apart.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from helpers.annex.training import Recipe, TrainingResult, forward, train
from helpers.cifar10 import Cifar10, load_cifar10, test_loader
from helpers.environment import choose_device, collect_environment
from helpers.models.accuracy import measure_accuracy, score

MODEL = "resnet18_cifar"
GOAL, GOAL_S = 0.945, 60
PART_BYTES = 15 * 2**20
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
        kept["peak_reserved_mib"] = torch.cuda.max_memory_reserved(device) / 2**20
        torch.cuda.reset_peak_memory_stats(device)
    return kept


@contextmanager
def eager() -> Iterator[None]:
    """Let `train` call the network itself, as where torch.compile does not work."""
    warm, forward._warm = forward._warm, lambda *_: "to compare"
    try:
        yield
    finally:
        forward._warm = warm


def time_epochs(data: Cifar10, device: torch.device, limit: int | None) -> dict:
    """Three epochs with checkpoints: the first chooses kernels, the last is steady."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "timed.pt"
        result = train(MODEL, data, epochs=3, device=device, limit=limit, checkpoint=file)
    found = facts(result, device)
    memory = f"{found.get('peak_allocated_mib', 0):.0f} MiB"
    print(
        f"{result.trained_on}: epochs {', '.join(f'{s:.2f}' for s in result.epoch_s)} s, "
        f"before them {result.setup_s:.1f} s, checkpoint {result.checkpoint_s / 3:.2f} s, {memory}",
        flush=True,
    )
    return found


def profile(data: Cifar10, device: torch.device, limit: int) -> str:
    """Where the time of one short epoch goes, by kernel."""
    with torch.profiler.profile() as profiler:
        train(MODEL, data, epochs=1, device=device, limit=limit)
    key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    averages = profiler.key_averages()
    return averages.table(sort_by=key, row_limit=20, max_name_column_width=70)


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


def export(path: Path, folder: Path) -> None:
    """The kept checkpoint's weights, FP32, in parts to join with `cat weights.pt.part*`."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    whole = folder / "weights.pt"
    torch.save({"model": stored["model"], "state_dict": stored["state_dict"]}, whole)
    content = whole.read_bytes()
    whole.unlink()
    for part, start in enumerate(range(0, len(content), PART_BYTES)):
        (folder / f"weights.pt.part{part}").write_bytes(content[start : start + PART_BYTES])


def summary(runs: list[dict]) -> str:
    """One line for each recipe: mean ± sd over its seeds."""
    lines = [
        "recipe | seeds | epochs | without TTA (%) | flip TTA (%) | training (s) | checkpoints"
    ]
    for name in dict.fromkeys(run["recipe_name"] for run in runs):
        mine = [run for run in runs if run["recipe_name"] == name]
        plain, tta = (
            _mean_sd([100 * run["evaluation"][kind]["accuracy"] for run in mine])
            for kind in ("plain", "flip_tta")
        )
        seconds = _mean_sd([run["train_s"] for run in mine])
        written = _mean_sd([run["checkpoint_s"] for run in mine])
        lines.append(
            f"{name} | {len(mine)} | {mine[0]['epochs']} | {plain} | {tta} | {seconds} | {written}"
        )
    return "\n".join(lines)


def _mean_sd(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


def main() -> None:
    """Load, time two epochs, then train and evaluate seed after seed while the time lasts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="for runs of a few seeds each")
    parser.add_argument("--epochs", type=int, help="default: as many as fit in --fit-s")
    parser.add_argument("--fit-s", type=float, default=56)
    parser.add_argument("--limit-s", type=float, default=420)
    parser.add_argument("--limit", type=int, help="train images; default: all")
    parser.add_argument("--keep", type=Path, help="folder for the first seed's checkpoint")
    parser.add_argument("--export", action="store_true", help="write its weights in parts")
    parser.add_argument("--quick", action="store_true", help="time epochs, eager too; profile")
    parser.add_argument("--hold-out", type=int, default=0, help="compare recipes on train images")
    parser.add_argument("--candidates", nargs="*", choices=list(CANDIDATES))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    begin, choice = time.perf_counter(), choose_device("auto")
    device = choice.device
    data = load_cifar10(args.data, "cifar10")
    data = hold_out(data, args.hold_out) if args.hold_out else data
    batches = list(test_loader(data, 500))
    report = {"environment": collect_environment(choice), "runs": []}
    report |= {"loading_s": time.perf_counter() - begin, "data": data.fingerprint}
    report["evaluated_on"] = f"last {args.hold_out} train images" if args.hold_out else "test set"
    print(f"{data.source}: loaded in {report['loading_s']:.1f} s, {device}", flush=True)
    report["timing"] = [time_epochs(data, device, args.limit)]
    if args.quick:
        with eager():
            report["timing"].append(time_epochs(data, device, args.limit))
        print(profile(data, device, min(args.limit or 10_000, 10_000)))
    write(args.folder, report)
    if not args.quick:
        run_all(args, report, data, batches, device, begin)


def run_all(args, report: dict, data: Cifar10, batches: list, device, begin: float) -> None:
    """Every seed with every recipe asked for; the report is written after each."""
    timed = report["timing"][0]
    epochs = args.epochs or int(args.fit_s / (timed["epoch_s"][-1] + timed["checkpoint_s"] / 3))
    names = args.candidates or (list(CANDIDATES) if args.hold_out else ["recipe"])
    keep = args.keep or Path(tempfile.mkdtemp(prefix="training-"))
    longest = 0.0
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    for seed, name in ((seed, name) for seed in seeds for name in names):
        start = time.perf_counter()
        if start - begin + longest > args.limit_s:
            print(f"seed {seed}, {name}: not begun, it might end after --limit-s {args.limit_s}")
            break
        path = keep / f"{MODEL}-{name}-{epochs}-epochs-seed-{seed}.pt"
        result = train(
            *(MODEL, data),
            epochs=epochs,
            seed=seed,
            device=device,
            checkpoint=path,
            limit=args.limit,
            recipe=CANDIDATES[name],
        )
        run = facts(result, device) | {"recipe_name": name, "recipe": vars(CANDIDATES[name])}
        run["evaluation"] = evaluate(result, batches, device)
        report["runs"].append(run)
        longest = max(longest, time.perf_counter() - start)
        tell(run)
        if seed == args.first_seed and name == "recipe":
            print(f"checkpoint: {path}", flush=True)
            if args.export:
                export(path, args.folder)
        else:
            path.unlink()
        write(args.folder, report)
    print(summary(report["runs"]))
    if not args.hold_out:
        tell_goal(report["runs"])
    print(f"total {time.perf_counter() - begin:.0f} s")


def tell(run: dict) -> None:
    """One line for each run."""
    plain, tta = run["evaluation"]["plain"], run["evaluation"]["flip_tta"]
    low, high = plain["wilson_95"]
    print(
        f"{run['recipe_name']}, seed {run['seed']}, {run['epochs']} epochs: {run['train_s']:.1f} s "
        f"+ checkpoints {run['checkpoint_s']:.1f} s, loss {run['losses'][-1]:.3f}, "
        f"{plain['accuracy']:.2%} [{low:.2%}, {high:.2%}], flip TTA {tta['accuracy']:.2%}",
        flush=True,
    )


def tell_goal(runs: list[dict]) -> None:
    """Whether the goal was reached, with the checkpoints' writing counted."""
    mean = np.mean([run["evaluation"]["plain"]["accuracy"] for run in runs])
    slowest = max(run["train_s"] + run["checkpoint_s"] for run in runs)
    reached = "reached" if mean >= GOAL and slowest <= GOAL_S and len(runs) >= 5 else "NOT reached"
    print(f"goal {reached}: mean {mean:.2%} of {len(runs)} seeds, slowest {slowest:.1f} s in all")


def write(folder: Path, report: dict) -> None:
    """training.json, as far as it has come."""
    text = json.dumps(report, indent=1, default=str, ensure_ascii=False)
    (folder / "training.json").write_text(text + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
