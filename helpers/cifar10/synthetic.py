"""Images that stand in for CIFAR-10 where it cannot be had: same shapes, ten learnable classes."""

import numpy as np

PATTERNS = (
    "bandes horizontales fines",
    "bandes horizontales larges",
    "bandes verticales fines",
    "bandes verticales larges",
    "damier fin",
    "damier large",
    "disque",
    "anneau",
    "croix",
    "carré",
)
# Shares of a pixel's variance: pattern, tint of the image, noise of the pixel. They add up to 1,
# so that the set has CIFAR-10's mean and standard deviation, but for a little clipping.
PATTERN_SHARE, TINT_SHARE, NOISE_SHARE = 0.80, 0.12, 0.08


def patterns() -> np.ndarray:
    """The ten classes as (10, 32, 32) int8 of ±1; a flip or a small rotation keeps the class."""
    y, x = np.mgrid[0:32, 0:32]
    radius = np.hypot(y - 15.5, x - 15.5)
    off_axis = np.minimum(abs(y - 15.5), abs(x - 15.5))
    reach = np.maximum(abs(y - 15.5), abs(x - 15.5))
    masks = (
        y // 2 % 2 == 0,
        y // 8 % 2 == 0,
        x // 2 % 2 == 0,
        x // 8 % 2 == 0,
        (y // 4 + x // 4) % 2 == 0,
        (y // 8 + x // 8) % 2 == 0,
        radius < 11,
        (radius > 8) & (radius < 14),
        off_axis < 3,
        reach < 9,
    )
    return np.stack([np.where(mask, 1, -1) for mask in masks]).astype(np.int8)


def _draw(rng, labels: np.ndarray, mean, std) -> np.ndarray:
    """Images (n, 32, 32, 3) uint8: the label's pattern, shifted, of either sign, tinted, noisy."""
    count = len(labels)
    rows, columns = (np.arange(32) + rng.integers(32, size=(2, count, 1))) % 32
    sign = rng.choice(np.array([-1, 1], np.int8), size=(count, 1, 1))
    pattern = sign * patterns()[labels[:, None, None], rows[:, :, None], columns[:, None, :]]
    # Uniform on [-a, a] has variance a²/3. Integers, so that every machine draws the same images.
    scale = 255 * np.asarray(std)
    contrast = np.rint(scale * np.sqrt(PATTERN_SHARE)).astype(np.int16)
    tint = rng.uniform(-1, 1, size=(count, 3)) * scale * np.sqrt(3 * TINT_SHARE)
    level = np.rint(255 * np.asarray(mean) + tint).astype(np.int16)
    reach = round(scale.mean() * np.sqrt(3 * NOISE_SHARE))
    images = rng.integers(-reach, reach + 1, size=(count, 32, 32, 3), dtype=np.int16)
    images += level[:, None, None, :]
    images += pattern[..., None] * contrast
    return np.clip(images, 0, 255).astype(np.uint8)


def draw_synthetic(seed: int, mean, std, train_size: int = 50_000, test_size: int = 10_000):
    """A balanced set of ten drawn classes, the same for the same seed.

    Parameters
    ----------
    mean, std : per channel, as fractions of 255, which the set has to within about 0.01.

    Returns
    -------
    train_images, train_labels, test_images, test_labels
        (n, 32, 32, 3) uint8 and (n,) int64, as CIFAR-10's.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for size in (train_size, test_size):
        labels = rng.permutation(np.arange(size) % len(PATTERNS))
        # in parts: the int16 intermediates of 50,000 images would take a gigabyte
        parts = np.array_split(labels, max(1, size // 5_000))
        drawn += [np.concatenate([_draw(rng, part, mean, std) for part in parts]), labels]
    return tuple(drawn)
