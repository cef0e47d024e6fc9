"""Augmentation by tensors is torchvision's, image by image."""

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from helpers.annex.training.augmentation import (
    DEGREES,
    PADDING,
    Draws,
    augment,
    augmented_batches,
    draw,
)
from helpers.cifar10.transforms import MEAN, STD, train_transform

BLACK = -torch.tensor(MEAN) / torch.tensor(STD)


def draws(count=1, top=PADDING, left=PADDING, flip=False, angle=0.0, square=(0, 0)):
    """One draw for each image; by default those that change nothing."""
    values = (torch.as_tensor(v).expand(count) for v in (top, left, flip, angle))
    return Draws(*values, torch.as_tensor(square).expand(count, 2))


def by_torchvision(image, top, left, flip, angle, square):
    """The same draws through torchvision's functions, one image at a time."""
    x = F.to_image(image.numpy())
    x = F.crop(F.pad(x, [PADDING] * 4), int(top), int(left), 32, 32)
    x = F.horizontal_flip(x) if flip else x
    x = F.rotate(x, float(angle), fill=0)
    return F.normalize(F.to_dtype(x, torch.float32, scale=True), MEAN, STD)


def share_of_equal_pixels(images, chosen):
    found = augment(images, chosen)
    assert found.is_contiguous(memory_format=torch.channels_last)
    wanted = torch.stack([by_torchvision(*values) for values in zip(images, *chosen, strict=True)])
    return ((found - wanted).abs().amax(dim=1) < 1e-5).float().mean().item()


def test_everything_together_is_torchvisions_for_each_image_on_its_own():
    torch.manual_seed(1)
    images, drawn = torch.randint(0, 256, (300, 32, 32, 3), dtype=torch.uint8), draw(300)
    assert share_of_equal_pixels(images, drawn) > 0.9995
    assert share_of_equal_pixels(images, drawn._replace(angle=torch.zeros(300))) == 1
    # A pixel that the crop cuts off must not come back with the rotation.
    white = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    assert share_of_equal_pixels(white, draws(top=8, left=0, flip=True, angle=15.0)) > 0.9995
    assert torch.allclose(augment(white, draws(angle=15.0))[0, :, 0, 0], BLACK)


def test_the_constants_are_the_train_transforms():
    assert (PADDING, DEGREES) == (4, 15)  # as asked for
    _, crop, flip, rotation, *_ = train_transform().transforms
    assert (tuple(crop.size), set(crop.padding), crop.fill) == ((32, 32), {PADDING}, 0)
    assert flip.p == 0.5
    assert (list(rotation.degrees), rotation.fill) == ([-DEGREES, DEGREES], 0)
    assert str(getattr(rotation.interpolation, "value", rotation.interpolation)) == "nearest"


@pytest.mark.parametrize("side", [0, 1, 12, 32])
def test_cutout_covers_one_square_of_each_image_wherever_it_fits(side):
    torch.manual_seed(0)
    white, squares = torch.full((2000, 32, 32, 3), 255, dtype=torch.uint8), draw(2000, side).square
    found = augment(white, draws(2000, square=squares), side)
    assert ((found == 0).sum(dim=(1, 2, 3)) == 3 * side**2).all()
    for image, (top, left) in zip(found[:20], squares[:20].tolist(), strict=True):
        assert (image[:, top : top + side, left : left + side] == 0).all()
    assert (squares.min(), squares.max()) == (0, 32 - side)


def test_an_epoch_shows_each_image_once_with_its_own_label():
    torch.manual_seed(0)
    images = torch.arange(60, dtype=torch.uint8)[:, None, None, None].expand(-1, 32, 32, 3)
    order = []
    for shown, numbers in augmented_batches(images.contiguous(), torch.arange(60), 20, 12):
        order += numbers.tolist()
        value = (shown[:, 0] * STD[0] + MEAN[0]).mul(255).round()
        share = (value == numbers[:, None, None]).float().mean(dim=(1, 2))
        assert (share > 0.4).all()
    assert order != sorted(order) == list(range(60))
