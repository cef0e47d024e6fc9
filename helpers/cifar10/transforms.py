"""CIFAR-10's transforms and loaders; images that stand in for it where it cannot be had."""

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

MEAN = (0.4914, 0.4822, 0.4465)  # of the train images, per channel, as fractions of 255
STD = (0.2470, 0.2435, 0.2616)
_NORMALISED = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD), v2.ToPureTensor()]


def train_transform() -> v2.Transform:
    """Crop, flip and rotate at random, then normalise: (32, 32, 3) uint8 → (3, 32, 32) float32."""
    augmented = v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), v2.RandomRotation(15)
    return v2.Compose([v2.ToImage(), *augmented, *_NORMALISED])


def test_transform() -> v2.Transform:
    """Normalisation only: (32, 32, 3) uint8 → (3, 32, 32) float32."""
    return v2.Compose([v2.ToImage(), *_NORMALISED])


def train_loader(data, batch_size: int = 128, seed: int = 0) -> DataLoader:
    """Shuffled, augmented batches (b, 3, 32, 32) float32 and labels (b,) int64 of a `Cifar10`.

    The order depends on `seed` alone; augmentation draws from torch's global generator.
    """
    arrays = data.train_images, data.train_labels, train_transform()
    return _loader(*arrays, batch_size, torch.Generator().manual_seed(seed), shuffle=True)


def test_loader(data, batch_size: int = 1, limit: int | None = None) -> DataLoader:  # noqa: PT028
    """Test batches (b, 3, 32, 32) float32 in official order; the first `limit` images only."""
    arrays = data.test_images[:limit], data.test_labels[:limit], test_transform()
    # Its own generator, though nothing is shuffled: a DataLoader without one draws from torch's
    # global generator each time it is iterated, and so changes what is drawn afterwards.
    return _loader(*arrays, batch_size, torch.Generator())


def _loader(images, labels, transform, batch_size: int, generator, shuffle=False) -> DataLoader:
    def batch(indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.stack([transform(images[index]) for index in indices])
        return chosen, torch.from_numpy(labels[indices])

    settings = {"shuffle": shuffle, "generator": generator, "collate_fn": batch}
    return DataLoader(range(len(images)), batch_size, **settings)


_y, _x = np.mgrid[0:32, 0:32]
_dy, _dx, _radius = abs(_y - 15.5), abs(_x - 15.5), np.hypot(_y - 15.5, _x - 15.5)
PATTERNS = {  # a flip or a small rotation keeps the class
    "fine rows": _y // 2 % 2 == 0,
    "wide rows": _y // 8 % 2 == 0,
    "fine columns": _x // 2 % 2 == 0,
    "wide columns": _x // 8 % 2 == 0,
    "fine chequers": (_y // 4 + _x // 4) % 2 == 0,
    "wide chequers": (_y // 8 + _x // 8) % 2 == 0,
    "disc": _radius < 11,
    "ring": (_radius > 8) & (_radius < 14),
    "cross": np.minimum(_dy, _dx) < 3,
    "square": np.maximum(_dy, _dx) < 9,
}


def draw_synthetic(seed: int, sizes: tuple[int, int] = (50_000, 10_000)) -> tuple:
    """Train images, train labels, test images, test labels as CIFAR-10's; a seed's are the same."""
    rng, drawn = np.random.default_rng(seed), []
    for size in sizes:
        labels = rng.permutation(np.arange(size) % 10)
        parts = np.array_split(labels, max(1, size // 5_000))  # less memory than all at once
        drawn += [np.concatenate([_draw(rng, part) for part in parts]), labels]
    return tuple(drawn)


def _draw(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Each label's pattern, shifted, of either sign, with noise: (n, 32, 32, 3) uint8."""
    count = len(labels)
    patterns = np.where(list(PATTERNS.values()), 1, -1).astype(np.int16)
    rows, columns = (np.arange(32) + rng.integers(32, size=(2, count, 1))) % 32
    sign = rng.choice(np.array([-1, 1], np.int16), size=(count, 1, 1))
    pattern = sign * patterns[labels[:, None, None], rows[:, :, None], columns[:, None, :]]
    # CIFAR-10's mean and, with the variance of both, its standard deviation. Integers, so that
    # every machine draws the same images.
    level, contrast = np.rint([255 * np.array(MEAN), 0.87 * 255 * np.array(STD)]).astype(np.int16)
    noise = rng.integers(-54, 55, size=(count, 32, 32, 3), dtype=np.int16)
    return (level + contrast * pattern[..., None] + noise).astype(np.uint8)
