"""Images that stand in for CIFAR-10 where it cannot be had: same shapes, ten learnable classes."""

import numpy as np

from helpers.cifar10.transforms import MEAN, STD


def patterns() -> np.ndarray:
    """The ten classes as (10, 32, 32) int16 of ±1; a flip or a small rotation keeps the class."""
    y, x = np.mgrid[0:32, 0:32]
    radius = np.hypot(y - 15.5, x - 15.5)
    masks = (
        y // 2 % 2 == 0,  # fine and wide stripes, across and upright
        y // 8 % 2 == 0,
        x // 2 % 2 == 0,
        x // 8 % 2 == 0,
        (y // 4 + x // 4) % 2 == 0,  # chequers
        (y // 8 + x // 8) % 2 == 0,
        radius < 11,  # disc and ring
        (radius > 8) & (radius < 14),
        np.minimum(abs(y - 15.5), abs(x - 15.5)) < 3,  # cross and square
        np.maximum(abs(y - 15.5), abs(x - 15.5)) < 9,
    )
    return np.where(masks, 1, -1).astype(np.int16)


def _draw(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Each label's pattern, shifted, of either sign, with noise: (n, 32, 32, 3) uint8."""
    count = len(labels)
    rows, columns = (np.arange(32) + rng.integers(32, size=(2, count, 1))) % 32
    sign = rng.choice(np.array([-1, 1], np.int16), size=(count, 1, 1))
    pattern = sign * patterns()[labels[:, None, None], rows[:, :, None], columns[:, None, :]]
    # CIFAR-10's mean and, with the variance of both, its standard deviation. Integers, so that
    # every machine draws the same images.
    level, contrast = np.rint([255 * np.array(MEAN), 0.87 * 255 * np.array(STD)]).astype(np.int16)
    noise = rng.integers(-54, 55, size=(count, 32, 32, 3), dtype=np.int16)
    return (level + contrast * pattern[..., None] + noise).astype(np.uint8)


def draw_synthetic(seed: int, sizes: tuple[int, int] = (50_000, 10_000)) -> tuple:
    """Train images, train labels, test images, test labels as CIFAR-10's; a seed's are the same."""
    rng, drawn = np.random.default_rng(seed), []
    for size in sizes:
        labels = rng.permutation(np.arange(size) % 10)
        parts = np.array_split(labels, max(1, size // 5_000))  # less memory than all at once
        drawn += [np.concatenate([_draw(rng, part) for part in parts]), labels]
    return tuple(drawn)
