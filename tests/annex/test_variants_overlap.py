"""Shortcuts on a second stream: the same function, begun early, joined where it is added."""

import pytest
import torch
from test_variants_network import IMAGES, assert_same, ready, shaken
from torch import nn
from torch.nn import functional as F

from helpers.annex.variants import VariantFailed
from helpers.annex.variants.network import fuse_epilogues
from helpers.annex.variants.overlap import Aside, overlap_shortcuts


def fused_and_overlapped(network, example):
    return overlap_shortcuts(fuse_epilogues(network, example), example)


def asides(network):
    return sum(isinstance(module, Aside) for module in network.modules())


@pytest.mark.parametrize("rewrite", [overlap_shortcuts, fused_and_overlapped])
@pytest.mark.parametrize("name", ["resnet18", "resnet18_cifar", "regnet_y_400mf", "resnet50"])
def test_a_shortcut_begins_before_the_main_path_and_is_joined_where_it_is_added(name, rewrite):
    network = assert_same(rewrite, shaken(name))
    assert asides(network) in (3, 4)
    if name == "resnet18":
        order = [str(node.target) for node in network.graph.nodes if "layer2" in str(node.target)]
        begun, joined = (i for i, target in enumerate(order) if "downsample" in target)
        assert begun < order.index(next(t for t in order if "conv1" in t)) < joined


class Block(nn.Module):
    """A shortcut that reads what `write` may overwrite before it or meanwhile."""

    def __init__(self, write, early=False):
        super().__init__()
        self.main, self.shortcut = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.write, self.early = write, early

    def forward(self, x):
        x = x * 1  # the caller's image stays
        short = self.shortcut(x) if self.early else None
        main = self.main(self.write(x))
        return main + (short if self.early else self.shortcut(x))


WRITES = {
    "module": nn.ReLU(inplace=True),
    "functional": lambda x: F.relu(x, inplace=True),
    "out": lambda x: torch.add(x, 1, out=x),
    "alias": lambda x: x.contiguous().relu_(),
    "view": lambda x: x.flatten(2).relu_().view(x.shape),
}


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_shortcut_from_what_is_overwritten_stays_where_it_is(write, early):
    with torch.no_grad(), pytest.raises(VariantFailed, match="nothing_to_change"):
        overlap_shortcuts(ready(Block(write, early)), IMAGES)


class TwoShortcuts(Block):
    def forward(self, x):
        return self.main(x) + self.shortcut(x)


@pytest.mark.parametrize("make", [Block, TwoShortcuts])
def test_a_harmless_main_path_lets_the_shortcut_go_even_from_a_tensor_of_inference_mode(make):
    with torch.inference_mode():
        images = IMAGES.clone()
    network = ready(make(torch.relu))
    assert asides(assert_same(lambda n, _: overlap_shortcuts(n, images), network))
