"""Rewritten networks compute the same function in fewer, cheaper or suited layers."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.annex.variants import VariantFailed
from helpers.annex.variants.network import (
    ConvEpilogue,
    crop_to_image,
    fold_batch_norm,
    fuse_epilogues,
    suit_stem,
)
from helpers.annex.variants.overlap import overlap_shortcuts
from helpers.models import build_model

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def ready(network):
    return network.eval().requires_grad_(False)


def shaken(name):
    """A model whose batch-norms are no identity, as after a training."""
    network = ready(build_model(name))
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return network


def assert_same(rewrite, network, images=IMAGES):
    """Rewrite, and compare; returns the new network."""
    with torch.no_grad():
        expected = network(images)
        found = rewrite(network, images)
        limit = 1e-4 * expected.abs().max().item()
        torch.testing.assert_close(found(images), expected, rtol=1e-3, atol=limit)
    return found


@pytest.mark.parametrize("rewrite", [fold_batch_norm, crop_to_image, fuse_epilogues, suit_stem])
@pytest.mark.parametrize("name", ["resnet18", "resnet18_cifar", "densenet121", "regnet_y_400mf"])
def test_the_same_function_of_the_image(name, rewrite):
    assert_same(rewrite, shaken(name))


def test_resnet18_becomes_twenty_small_convolutions_with_nothing_between():
    def all_of_it(network, images):
        return fuse_epilogues(suit_stem(crop_to_image(network, images), images), images)

    whole = sum(p.numel() for p in build_model("resnet18").parameters())
    network = assert_same(all_of_it, shaken("resnet18"))
    assert sum(p.numel() for p in network.parameters()) < 0.4 * whole  # the rest met padding
    kinds = [type(m) for m in network.modules() if not list(m.children())]
    assert kinds.count(ConvEpilogue) == 17
    assert kinds.count(nn.Conv2d) == 3  # on the shortcuts
    assert not {nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d} & set(kinds)


CONVOLUTIONS = [
    nn.Conv2d(3, 4, 7, padding=3, stride=2),
    nn.Conv2d(3, 4, 3, padding=2, dilation=2),
    nn.Conv2d(3, 4, (3, 1), padding=(1, 0)),
    nn.Conv2d(3, 4, 3, padding="same"),
    nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
    nn.Conv2d(3, 3, 3, padding=1, groups=3),
    nn.Conv2d(3, 4, 1, padding=1),
]


@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 3), (3, 2)])
def test_cropping_is_exact_whatever_the_convolution(conv, size):
    network = ready(nn.Sequential(copy.deepcopy(conv)))  # cropping changes it
    assert_same(crop_to_image, network, IMAGES[:, :, : size[0], : size[1]])


class Twice(nn.Module):
    """One layer at two sizes, which cropping must leave."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(F.avg_pool2d(self.conv(x), 2))


class Shared(nn.Module):
    """What must not be fused: a value used twice, a layer used twice, a sum with more users."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        y = self.one(x)
        z = torch.relu(y) + y
        s = self.two(self.two(z)) + z
        return torch.relu(s) + s


@pytest.mark.parametrize("rewrite", [crop_to_image, fuse_epilogues, suit_stem])
@pytest.mark.parametrize("make", [Twice, Shared])
def test_what_is_used_elsewhere_stays_right(make, rewrite):
    found = assert_same(rewrite, ready(make()), IMAGES[:, :, :2, :2])
    assert not any(isinstance(m, ConvEpilogue) for m in found.modules())


POOLS = [
    nn.MaxPool2d((3, 2), stride=(1, 2), padding=(1, 0)),
    nn.MaxPool2d(3, 2, 1, dilation=2, ceil_mode=True),
    nn.MaxPool2d([3, 2], 1),
]


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_every_max_pooling_is_the_same_in_3d(pool):
    images = IMAGES.contiguous(memory_format=torch.channels_last)
    assert_same(suit_stem, nn.Sequential(pool), images)


@pytest.mark.parametrize("rewrite", [fold_batch_norm, suit_stem, overlap_shortcuts])
def test_where_there_is_nothing_to_change_it_is_said(rewrite):
    with torch.no_grad(), pytest.raises(VariantFailed, match="nothing_to_change"):
        rewrite(ready(nn.Sequential(nn.Conv2d(3, 6, 3, groups=3))), IMAGES)
