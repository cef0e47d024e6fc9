"""How a short training moves the weights."""

from dataclasses import dataclass

import numpy as np

from helpers.annex.training.augmentation import SIZE


@dataclass(frozen=True)
class Recipe:
    """How the weights are moved.

    Batch, rate, decay and cutout are those of KellerJordan/cifar10-zoo's ResNet-18 script; the
    label smoothing is not.

    Raises
    ------
    ValueError
        `cutout` is no side of a square that fits into an image.
    """

    batch_size: int = 500  # fewer where there are few images: see `batch_for`
    peak_rate: float = 0.2  # learning rate at the peak, for 500 images a batch
    warmup: float = 0.2  # share of the steps before the peak
    momentum: float = 0.9
    weight_decay: float = 5e-4  # not of biases and batch-norms
    label_smoothing: float = 0.1
    cutout: int = 12  # side (pixels) of the square that is covered in each image

    def __post_init__(self):
        if not 0 <= self.cutout <= SIZE:
            raise ValueError(f"cutout={self.cutout}: cover a square of 0 to {SIZE} pixels")

    def batch_for(self, images: int) -> int:
        """Images in a batch: at least 20 steps an epoch, or a short training learns nothing."""
        return min(self.batch_size, max(2, images // 20))

    def rate(self, progress: float, batch: int) -> float:
        """Learning rate at `progress` in [0, 1): up from a fifth of the peak, then down to 0."""
        share = np.interp(progress, [0, self.warmup, 1], [0.2, 1, 0])
        return float(self.peak_rate * batch / 500 * share)
