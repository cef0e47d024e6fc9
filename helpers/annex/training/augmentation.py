"""Step 2's train transforms, drawn per image and applied to whole batches where the images are.

torchvision's v2 transforms draw once per call, so a batch would be cropped, flipped and rotated as
one; and a DataLoader on the CPU would dominate a fast training. Here crop, flip and rotation are
one gather of uint8 pixels, then the same normalisation; the recipe's cutout comes after it.
"""

from functools import lru_cache
from typing import NamedTuple

import torch

from helpers.cifar10.transforms import MEAN, STD

# Those of train_transform(): a test compares them.
PADDING = 4
DEGREES = 15
SIZE = 32


class Draws(NamedTuple):
    """What was drawn for n images: each a tensor (n,)."""

    top: torch.Tensor  # first row and column of the crop in the padded image, int64
    left: torch.Tensor
    flip: torch.Tensor  # bool
    angle: torch.Tensor  # degrees, counter-clockwise, float32

    def part(self, indices: slice) -> "Draws":
        """The draws of some of the images."""
        return Draws(*(values[indices] for values in self))

    def to(self, device: torch.device) -> "Draws":
        """The same draws on `device`."""
        return Draws(*(values.to(device) for values in self))


def draw(count: int) -> Draws:
    """Draw crop, flip and angle for `count` images, each its own, from torch's global generator.

    On the CPU, so that a seed draws the same whatever the device.
    """
    return Draws(
        top=torch.randint(0, 2 * PADDING + 1, (count,)),
        left=torch.randint(0, 2 * PADDING + 1, (count,)),
        flip=torch.rand(count) < 0.5,
        angle=torch.empty(count).uniform_(-DEGREES, DEGREES),
    )


def augment(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Crop, flip, rotate and normalise each image as its own draws say.

    Equals torchvision's pad (black) and crop, horizontal_flip, rotate (nearest, black corners),
    to_dtype and normalize, one image at a time; where a rotated position falls halfway between two
    pixels, rounding may choose the other one.

    Parameters
    ----------
    images : (n, 32, 32, 3) uint8.

    Returns
    -------
    (n, 3, 32, 32) float32 in channels_last layout, on the images' device.
    """
    row, column = _rotated_positions(draws.angle)
    inside = _inside(row) & _inside(column)
    column = torch.where(draws.flip[:, None, None], SIZE - 1 - column, column)
    row = row + draws.top[:, None, None] - PADDING
    column = column + draws.left[:, None, None] - PADDING
    inside &= _inside(row) & _inside(column)
    number = torch.arange(len(images), device=images.device)[:, None, None]
    pixels = images[number, row.clamp(0, SIZE - 1), column.clamp(0, SIZE - 1)]
    return normalise((pixels * inside[..., None]).permute(0, 3, 1, 2))


class AugmentedEpoch:
    """One pass over all images in a new order, each augmented by draws of its own.

    Everything is drawn here, on the CPU, and sent to the images' device at once.

    Parameters
    ----------
    images, labels : (n, 32, 32, 3) uint8 and (n,).
    cutout : side of the square that is covered in each image (pixels), 0 for none.
    """

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, batch_size: int, cutout: int):
        count, device = len(labels), images.device
        self._images, self._labels = images, labels
        self._batch_size, self._cutout = batch_size, cutout
        self._order, self._draws = torch.randperm(count).to(device), draw(count).to(device)
        self._squares = draw_squares(count, cutout).to(device)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Augmented images (batch_size, 3, 32, 32) and their labels."""
        part = slice(step * self._batch_size, (step + 1) * self._batch_size)
        chosen = self._order[part]
        images = augment(self._images[chosen], self._draws.part(part))
        return cut_out(images, self._squares[part], self._cutout), self._labels[chosen]


def draw_squares(count: int, side: int) -> torch.Tensor:
    """Draw the first row and column of a square inside each image, (count, 2) int64, on the CPU."""
    return torch.randint(0, SIZE - side + 1, (count, 2))


def cut_out(images: torch.Tensor, squares: torch.Tensor, side: int) -> torch.Tensor:
    """Cover a square of each image with the mean colour, which normalised images have at 0.

    Cutout (DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with
    Cutout", 2017); it is the recipe's, not step 2's.

    Parameters
    ----------
    images : (n, 3, 32, 32) normalised.
    squares : (n, 2) as `draw_squares` gives, on the images' device.
    side : of each square in pixels; 0 covers nothing.

    Returns
    -------
    New images in the same memory layout.
    """
    place = torch.arange(SIZE, device=images.device)
    first = squares[:, :, None]
    row, column = ((first <= place) & (place < first + side)).unbind(1)
    covered = row[:, :, None] & column[:, None, :]
    return images * ~covered[:, None]  # a product keeps channels_last; masked_fill does not


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """(n, 3, 32, 32) uint8 → float32, as the end of step 2's transforms does it."""
    mean, std = _constants(pixels.device)
    return (pixels / 255 - mean) / std


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


def _inside(position: torch.Tensor) -> torch.Tensor:
    return (position >= 0) & (position < SIZE)
