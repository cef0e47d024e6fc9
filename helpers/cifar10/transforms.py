"""CIFAR-10's normalisation constants, transforms and the data set that applies them per image."""

from collections.abc import Iterable

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms import v2

MEAN = (0.4914, 0.4822, 0.4465)  # of the train images, per channel, as fractions of 255
STD = (0.2470, 0.2435, 0.2616)


def train_transform() -> v2.Transform:
    """Random crop, flip and rotation, drawn anew at each call, then normalisation.

    Takes an image (32, 32, 3) uint8; gives a tensor (3, 32, 32) float32.
    """
    return v2.Compose(
        [
            v2.ToImage(),
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            v2.RandomRotation(15),
            *_normalisation(),
        ]
    )


def test_transform() -> v2.Transform:
    """Normalisation only: (32, 32, 3) uint8 → (3, 32, 32) float32."""
    return v2.Compose([v2.ToImage(), *_normalisation()])


def _normalisation() -> list[v2.Transform]:
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD), v2.ToPureTensor()]


class ImageDataset(Dataset):
    """Images (n, 32, 32, 3) with labels; the transform is drawn anew for each image asked for."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: v2.Transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def check_batches(batches: Iterable, batch_size: int) -> None:
    """Verify that a loader gives what `test_transform` makes of 8-bit images, in such batches.

    Undone, the normalisation must give back whole numbers from 0 to 255: images that are not
    normalised, twice normalised or otherwise augmented do not pass. Looks at one batch.

    Raises
    ------
    ValueError
        There is none, or its type, shape or normalisation is another one.
    """
    images, labels = next(iter(batches), (torch.zeros(0), torch.zeros(0)))
    found = tuple(images.shape), images.dtype, tuple(labels.shape)
    expected = (batch_size, 3, 32, 32), torch.float32, (batch_size,)
    if found != expected:
        raise ValueError(
            f"the data loader gives images and labels of {found}, expected are {expected}: "
            "build it with test_loader(data, batch_size)"
        )
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    pixels = (images * std + mean) * 255
    if not ((pixels - pixels.round().clamp(0, 255)).abs() < 0.01).all():
        raise ValueError(
            f"the data loader's images, from {images.min():.3g} to {images.max():.3g}, are not "
            f"8-bit images normalised with mean {MEAN} and std {STD}: apply test_transform() once"
        )
