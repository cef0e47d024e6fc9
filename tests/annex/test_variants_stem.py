"""First layers suited to channels last compute the same function of the image."""

import pytest
import torch
from torch import nn

from helpers.annex.variants.network import NothingToChange, fuse_epilogues
from helpers.annex.variants.stem import suit_stem
from helpers.models import build_model

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def ready(network):
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["resnet18", "resnet18_cifar", "squeezenet1_1", "densenet121"])
def test_the_same_function_of_the_image(name):
    network = ready(build_model(name))
    with torch.no_grad():
        expected = network(IMAGES)
        found = suit_stem(network, IMAGES)(IMAGES)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_resnet18_has_one_stem_and_one_pool_and_can_still_be_fused():
    with torch.no_grad():
        network = suit_stem(ready(build_model("resnet18")), IMAGES)
        assert network.conv1[1].weight.shape == (64, 4, 7, 7)
        assert not network.conv1[1].weight[:, 3].any()
        assert not any(isinstance(module, nn.MaxPool2d) for module in network.modules())
        expected = network(IMAGES)
        torch.testing.assert_close(fuse_epilogues(network, IMAGES)(IMAGES), expected)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2),
        nn.MaxPool2d((3, 2), stride=(1, 2), padding=(1, 0)),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d(3, 1, 1, dilation=2),
        nn.MaxPool2d([3, 2], 1),
    ],
    ids=str,
)
def test_every_max_pooling_is_the_same_in_3d(pool):
    network = nn.Sequential(pool)
    expected = network(IMAGES)
    found = suit_stem(network, IMAGES)(IMAGES.contiguous(memory_format=torch.channels_last))
    assert torch.equal(found, expected)


def test_a_convolution_used_twice_is_completed_in_both_places():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 3, padding=1)
    network = ready(nn.Sequential(conv, nn.ReLU(), conv))
    expected = network(IMAGES)
    torch.testing.assert_close(suit_stem(network, IMAGES)(IMAGES), expected)


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv2d(5, 8, 3)),
        nn.Sequential(nn.Conv2d(3, 6, 3, groups=3)),
        nn.Sequential(nn.Linear(3, 4)),
    ],
    ids=str,
)
def test_where_there_is_nothing_to_suit_it_is_said(network):
    with pytest.raises(NothingToChange, match="ni convolution"):
        suit_stem(ready(network), IMAGES)
