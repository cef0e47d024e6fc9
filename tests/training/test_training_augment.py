import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from helpers.annex.training.augmentation import (
    DEGREES,
    PADDING,
    AugmentedEpoch,
    Draws,
    augment,
    cut_out,
    draw,
    draw_squares,
)
from helpers.cifar10.transforms import MEAN, STD, test_transform, train_transform

test_transform.__test__ = False  # its name is not ours to choose


def random_images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)


def draws(count=1, top=PADDING, left=PADDING, flip=False, angle=0.0):
    """One draw for each image; by default those that change nothing."""
    values = (torch.tensor(v).expand(count) for v in (top, left, flip, angle))
    return Draws(*values)


def by_torchvision(image, top, left, flip, angle):
    """The same draws through torchvision's functions, one image at a time."""
    x = F.to_image(image.numpy())
    x = F.crop(F.pad(x, [PADDING] * 4), int(top), int(left), 32, 32)
    x = F.horizontal_flip(x) if flip else x
    x = F.rotate(x, float(angle), fill=0)
    return F.normalize(F.to_dtype(x, torch.float32, scale=True), MEAN, STD)


def share_of_equal_pixels(images, chosen):
    found = augment(images, chosen)
    wanted = torch.stack([by_torchvision(*values) for values in zip(images, *chosen, strict=True)])
    return ((found - wanted).abs().amax(dim=1) < 1e-5).float().mean().item()


def test_without_a_draw_only_the_normalisation_is_left():
    images = random_images(4)
    wanted = torch.stack([test_transform()(image.numpy()) for image in images])
    assert torch.allclose(augment(images, draws(4)), wanted, atol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("top", range(2 * PADDING + 1))
def test_crop_and_flip_are_torchvisions_to_the_pixel(top, flip):
    images = random_images(2 * PADDING + 1)
    chosen = draws(len(images), top=top, flip=flip)._replace(left=torch.arange(len(images)))
    assert share_of_equal_pixels(images, chosen) == 1


@pytest.mark.parametrize("angle", [-15.0, -7.3, -0.01, 0.4, 3.0, 11.7, 15.0])
def test_the_rotation_is_torchvisions(angle):
    assert share_of_equal_pixels(random_images(20), draws(20, angle=angle)) > 0.9995


def test_corners_are_black_as_torchvisions():
    white = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    found = augment(white, draws(angle=15.0))[0]
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    assert torch.allclose(found[:, 0, 0], black)
    assert torch.allclose(found[:, 31, 31], black)


def test_everything_together_is_torchvisions_for_each_image_on_its_own():
    torch.manual_seed(1)
    images, chosen = random_images(300), draw(300)
    assert share_of_equal_pixels(images, chosen) > 0.9995


def test_the_order_is_crop_flip_rotation():
    """A pixel that the crop cuts off must not come back with the rotation."""
    images = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    assert share_of_equal_pixels(images, draws(top=8, left=0, flip=True, angle=15.0)) > 0.9995


def test_the_constants_are_the_train_transforms():
    steps = train_transform().transforms
    kinds = [v2.ToImage, v2.RandomCrop, v2.RandomHorizontalFlip, v2.RandomRotation]
    kinds += [v2.ToDtype, v2.Normalize, v2.ToPureTensor]
    assert [type(step) for step in steps] == kinds
    crop, flip, rotation = steps[1:4]
    assert tuple(crop.size) == (32, 32)
    assert set(crop.padding) == {PADDING}
    assert (crop.padding_mode, crop.fill) == ("constant", 0)
    assert flip.p == 0.5
    assert list(rotation.degrees) == [-DEGREES, DEGREES]
    assert (rotation.fill, rotation.expand, rotation.center) == (0, False, None)
    assert str(getattr(rotation.interpolation, "value", rotation.interpolation)) == "nearest"


def test_each_image_has_a_draw_of_its_own_over_the_whole_range():
    torch.manual_seed(0)
    chosen = draw(20_000)
    for offsets in (chosen.top, chosen.left):
        counts = torch.bincount(offsets, minlength=9) / 20_000
        assert len(counts) == 9
        assert (counts - 1 / 9).abs().max() < 0.01
    assert abs(chosen.flip.float().mean() - 0.5) < 0.02
    assert chosen.angle.min() < -14.9
    assert chosen.angle.max() > 14.9
    assert chosen.angle.abs().max() <= DEGREES
    assert abs(chosen.angle.mean()) < 0.3
    assert abs(chosen.angle.std() - 2 * DEGREES / 12**0.5) < 0.15
    pairs = torch.stack([chosen.top.float(), chosen.left.float(), chosen.flip.float()])
    assert (
        torch.corrcoef(torch.cat([pairs, chosen.angle[None]])) - torch.eye(4)
    ).abs().max() < 0.03


def test_a_seed_draws_the_same_again():
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(draw(50))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_parts_of_the_draws_give_the_same_images():
    torch.manual_seed(2)
    images, chosen = random_images(10), draw(10)
    whole = augment(images, chosen)
    assert torch.equal(augment(images[4:7], chosen.part(slice(4, 7))), whole[4:7])


def test_the_result_is_channels_last_float32_and_the_images_stay():
    images = random_images(3)
    before = images.clone()
    torch.manual_seed(0)
    result = augment(images, draw(3))
    assert result.shape == (3, 3, 32, 32)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


@pytest.mark.parametrize("side", [0, 1, 12, 32])
def test_cutout_covers_one_square_of_each_image_wherever_it_fits(side):
    torch.manual_seed(0)
    images = torch.ones(2000, 3, 32, 32).to(memory_format=torch.channels_last)
    squares = draw_squares(2000, side)
    found = cut_out(images, squares, side)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert images.min() == 1
    assert ((found == 0).sum(dim=(1, 2, 3)) == 3 * side**2).all()
    for image, (top, left) in zip(found[:20], squares[:20].tolist(), strict=True):
        assert (image[:, top : top + side, left : left + side] == 0).all()
    assert squares.min() == 0
    assert squares.max() == 32 - side
    assert len(set(map(tuple, squares.tolist()))) > min((33 - side) ** 2 - 1, 400)


def test_an_epoch_shows_each_image_once_with_its_own_label():
    torch.manual_seed(0)
    count = 60
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 32, 32, 3)
    epoch = AugmentedEpoch(images.contiguous(), torch.arange(count), 20, 12)
    seen = [epoch.batch(step) for step in range(3)]
    labels = torch.cat([labels for _, labels in seen])
    assert sorted(labels.tolist()) == list(range(count))
    assert labels.tolist() != list(range(count))
    for shown, numbers in seen:
        brightest = (
            shown * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        ).mul(255)
        square = (shown == 0).all(dim=1).sum(dim=(1, 2))
        assert (square >= 144).all()
        share = (brightest.round()[:, 0] == numbers[:, None, None]).float().mean(dim=(1, 2))
        assert (share > 0.4).all()


@pytest.mark.gpu
def test_the_gpu_gives_what_the_cpu_gives():
    torch.manual_seed(1)
    images, chosen = random_images(200), draw(200)
    wanted = augment(images, chosen)
    found = augment(images.cuda(), chosen.to("cuda")).cpu()
    assert ((found - wanted).abs().amax(dim=1) < 1e-5).float().mean() > 0.9995
