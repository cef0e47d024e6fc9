"""Shortcuts on a second stream: the same function, begun early, joined where it is added."""

import pytest
import torch
from test_variants_network import IMAGES, assert_same, ready, shaken
from torch import fx, nn
from torch.nn import functional as F

from helpers.annex.variants import VariantFailed
from helpers.annex.variants.network import fuse_epilogues
from helpers.annex.variants.overlap import Aside, overlap_shortcuts


def fused_and_overlapped(network, example):
    return overlap_shortcuts(fuse_epilogues(network, example), example)


def traced_and_overlapped(network, example):
    return overlap_shortcuts(fx.symbolic_trace(network), example)


def asides(network):
    return sum(isinstance(module, Aside) for module in network.modules())


@pytest.mark.parametrize(
    "rewrite", [overlap_shortcuts, fused_and_overlapped, traced_and_overlapped]
)
@pytest.mark.parametrize("name", ["resnet18", "resnet18_cifar", "regnet_y_400mf", "resnet50"])
def test_a_shortcut_begins_before_the_main_path_and_is_joined_where_it_is_added(name, rewrite):
    network = assert_same(rewrite, shaken(name))
    assert asides(network) in (3, 4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    if name != "resnet18":
        return
    order = [str(node.target) for node in network.graph.nodes]
    begun = order.index("layer2_0_downsample_0_aside")
    first, second = (
        next(i for i, target in enumerate(order) if "layer2" in target and conv in target)
        for conv in ("conv1", "conv2")
    )
    joined = order.index("layer2_0_downsample_0_joined")
    assert begun < first < joined
    if rewrite is fused_and_overlapped:
        assert joined < second  # the last convolution adds it
    else:
        assert second < joined


class Block(nn.Module):
    """A shortcut that reads what `write` may overwrite before it or meanwhile."""

    def __init__(self, write, early=False):
        super().__init__()
        self.main, self.shortcut = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.write, self.early = write, early

    def forward(self, x):
        x = x * 1  # the caller's image stays
        if self.early:
            short = self.shortcut(x)
            return self.main(self.write(x)) + short
        return self.main(self.write(x)) + self.shortcut(x)


WRITES = {
    "module": nn.ReLU(inplace=True),
    "functional": lambda x: F.relu(x, inplace=True),
    "out": lambda x: torch.add(x, 1, out=x),
    "alias": lambda x: x.contiguous().relu_(),
    "view": lambda x: x.flatten(2).relu_().view(x.shape),
    "dropout": nn.Sequential(nn.Dropout2d(), nn.ReLU(inplace=True)),
}


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_shortcut_from_what_is_overwritten_stays_where_it_is(write, early):
    with torch.no_grad(), pytest.raises(VariantFailed, match="nothing_to_change"):
        overlap_shortcuts(ready(Block(write, early)), IMAGES)


def test_a_harmless_main_path_lets_the_shortcut_go_even_from_a_tensor_of_inference_mode():
    with torch.inference_mode():
        images = IMAGES.clone()
    assert asides(assert_same(lambda n, _: overlap_shortcuts(n, images), ready(Block(torch.relu))))


class TwoShortcuts(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.one(x) + self.two(x)


def test_two_shortcuts_of_one_sum():
    assert_same(overlap_shortcuts, ready(TwoShortcuts()))


class Keyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return torch.relu(x) + self.conv(input=x)


@pytest.mark.parametrize("make", [lambda: shaken("vgg11"), Keyword], ids=["vgg11", "keyword"])
def test_where_there_is_no_shortcut_it_is_said(make):
    with torch.no_grad(), pytest.raises(VariantFailed, match="nothing_to_change"):
        overlap_shortcuts(ready(make()), IMAGES)
