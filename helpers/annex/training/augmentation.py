"""Step 2's train transforms, drawn per image and applied to whole batches where the images are.

torchvision's v2 transforms draw once per call, for all of a batch; and a DataLoader on the CPU
would dominate a fast training. Here crop, flip and rotation are one gather of uint8 pixels.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch

from helpers.cifar10.transforms import MEAN, STD

PADDING, DEGREES, SIZE = 4, 15, 32  # those of train_transform(): a test compares them


class Draws(NamedTuple):
    """What was drawn for n images: each a tensor (n,), but the last."""

    top: torch.Tensor  # first row and column of the crop in the padded image, int64
    left: torch.Tensor
    flip: torch.Tensor  # bool
    angle: torch.Tensor  # degrees, counter-clockwise, float32
    square: torch.Tensor  # (n, 2) first row and column of the covered square, int64


def draw(count: int, cutout: int = 0, degrees: float = DEGREES) -> Draws:
    """Draw for `count` images, each its own, from torch's CPU generator, whatever the device."""
    return Draws(
        top=torch.randint(0, 2 * PADDING + 1, (count,)),
        left=torch.randint(0, 2 * PADDING + 1, (count,)),
        flip=torch.rand(count) < 0.5,
        angle=torch.empty(count).uniform_(-degrees, degrees),
        square=torch.randint(0, SIZE - cutout + 1, (count, 2)),
    )


def augment(images: torch.Tensor, draws: Draws, cutout: int = 0) -> torch.Tensor:
    """Crop, flip, rotate and normalise images (n, 32, 32, 3) uint8, each as its own draws say.

    As torchvision one image at a time, but where a rotated position falls halfway between two
    pixels. Then cutout (DeVries and Taylor, "Improved Regularization of Convolutional Neural
    Networks with Cutout", 2017): the mean colour covers a square of `cutout` pixels a side, 0 for
    none. Returns (n, 3, 32, 32) float32 in channels_last layout, on the images' device.
    """
    row, column = _rotated_positions(draws.angle)
    inside = _within(row, column)
    column = torch.where(draws.flip[:, None, None], SIZE - 1 - column, column)
    row = row + draws.top[:, None, None] - PADDING
    column = column + draws.left[:, None, None] - PADDING
    inside &= _within(row, column)
    number = torch.arange(len(images), device=images.device)[:, None, None]
    pixels = images[number, row.clamp(0, SIZE - 1), column.clamp(0, SIZE - 1)]
    mean, std = _constants(images.device)
    normalised = ((pixels * inside[..., None]).permute(0, 3, 1, 2) / 255 - mean) / std
    place, first = torch.arange(SIZE, device=images.device), draws.square[:, :, None]
    row, column = ((first <= place) & (place < first + cutout)).unbind(1)
    covered = row[:, :, None] & column[:, None, :]
    return normalised * ~covered[:, None]  # a product keeps channels_last; masked_fill does not


def augmented_batches(
    images: torch.Tensor, labels: torch.Tensor, size: int, cutout: int, degrees: float = DEGREES
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches (size, 3, 32, 32) and labels of one pass over (n, 32, 32, 3) uint8, in a new order.

    All is drawn at the start, on the CPU, and sent to the images' device at once. Images that fill
    no last batch are left out.
    """
    count, device = len(labels), images.device
    order = torch.randperm(count).to(device)
    draws = [values.to(device) for values in draw(count, cutout, degrees)]
    for first in range(0, count - size + 1, size):
        part = slice(first, first + size)
        chosen = order[part]
        mine = Draws(*(values[part] for values in draws))
        yield augment(images[chosen], mine, cutout), labels[chosen]


@lru_cache(maxsize=4)
def _constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std (3, 1, 1), sent to the device once: each sending would wait for its queue."""
    return tuple(torch.tensor(values).view(3, 1, 1).to(device) for values in (MEAN, STD))


def _rotated_positions(angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column (n, 32, 32) int64 that each output pixel takes its value from.

    The centre stays; half is rounded to even, as torchvision's grid_sample does.
    """
    middle = (SIZE - 1) / 2
    place = torch.arange(SIZE, device=angle.device) - middle
    y, x = place[:, None], place[None, :]
    radians = torch.deg2rad(angle)[:, None, None]
    cosine, sine = radians.cos(), radians.sin()
    row, column = sine * x + cosine * y, cosine * x - sine * y
    return (row + middle).round().long(), (column + middle).round().long()


def _within(*positions: torch.Tensor) -> torch.Tensor:
    return torch.stack([(at >= 0) & (at < SIZE) for at in positions]).all(dim=0)
