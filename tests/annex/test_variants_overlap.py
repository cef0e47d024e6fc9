"""Shortcuts on a second stream: the same function, begun early, joined where it is added."""

import pytest
import torch
from test_variants_network import IMAGES, ready, shaken
from torch import fx, nn
from torch.nn import functional as F

from helpers.annex.variants import parse
from helpers.annex.variants.guard import VariantFailed, admit
from helpers.annex.variants.network import NothingToChange, fuse_epilogues
from helpers.annex.variants.overlap import Aside, overlap_shortcuts


def fused_and_overlapped(network, example):
    return overlap_shortcuts(fuse_epilogues(network, example), example)


def asides(network):
    return sum(isinstance(module, Aside) for module in network.modules())


BOTH = pytest.mark.parametrize("rewrite", [overlap_shortcuts, fused_and_overlapped])


@BOTH
@pytest.mark.parametrize("name", ["resnet18", "resnet18_cifar", "regnet_y_400mf", "resnet50"])
def test_the_same_function_of_the_image(name, rewrite):
    with torch.no_grad():
        network = shaken(name)
        expected = network(IMAGES)
        found = rewrite(network, IMAGES)
        assert asides(found) in (3, 4)
        limit = 1e-4 * expected.abs().max().item()
        torch.testing.assert_close(found(IMAGES), expected, rtol=1e-3, atol=limit)


@BOTH
def test_a_shortcut_begins_before_the_main_path_and_is_joined_where_it_is_added(rewrite):
    with torch.no_grad():
        network = rewrite(shaken("resnet18"), IMAGES)
    order = [str(node.target) for node in network.graph.nodes]
    assert asides(network) == 3
    begun = order.index("layer2_0_downsample_0_aside")
    first = next(i for i, name in enumerate(order) if "layer2" in name and "conv1" in name)
    second = next(i for i, name in enumerate(order) if "layer2" in name and "conv2" in name)
    joined = order.index("layer2_0_downsample_0_joined")
    assert begun < first < joined
    if rewrite is overlap_shortcuts:
        assert second < joined
    else:
        assert joined < second  # the last convolution adds it


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
    "function": torch.relu_,
    "functional": lambda x: F.relu(x, inplace=True),
    "method": lambda x: x.add_(1),
    "out": lambda x: torch.add(x, 1, out=x),
    "alias": lambda x: x.contiguous().relu_(),
    "view": lambda x: x.flatten(2).relu_().view(x.shape),
    "later": nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)),
    "dropout": nn.Sequential(nn.Dropout2d(), nn.ReLU(inplace=True)),
}


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_shortcut_from_what_is_overwritten_stays_where_it_is(write, early):
    with torch.no_grad(), pytest.raises(NothingToChange, match="aucune convolution"):
        overlap_shortcuts(ready(Block(write, early)), IMAGES)


def test_a_harmless_main_path_lets_the_shortcut_go_even_from_a_tensor_of_inference_mode():
    network = ready(Block(torch.relu))
    with torch.inference_mode():
        images = IMAGES.clone()
        expected = network(images)
    with torch.no_grad():
        found = overlap_shortcuts(network, images)
        assert asides(found) == 1
        torch.testing.assert_close(found(IMAGES), expected)


class TwoShortcuts(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.one(x) + self.two(x)


def test_two_shortcuts_of_one_sum():
    network = ready(TwoShortcuts())
    with torch.no_grad():
        expected = network(IMAGES)
        torch.testing.assert_close(overlap_shortcuts(network, IMAGES)(IMAGES), expected)


def test_a_network_that_was_traced_before_has_its_batch_norms_folded():
    with torch.no_grad():
        network = shaken("resnet18")
        expected = network(IMAGES)
        found = overlap_shortcuts(fx.symbolic_trace(network), IMAGES)
    assert asides(found) == 3
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.modules())
    limit = 1e-4 * expected.abs().max().item()
    torch.testing.assert_close(found(IMAGES), expected, rtol=1e-3, atol=limit)


class Keyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return torch.relu(x) + self.conv(input=x)


@pytest.mark.parametrize("make", [lambda: shaken("vgg11"), Keyword], ids=["vgg11", "keyword"])
def test_where_there_is_no_shortcut_the_variant_is_not_measured(make):
    images = [torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in (1, 2)]
    with pytest.raises(VariantFailed, match="aucune convolution sur un raccourci"):
        admit(parse("overlap"), ready(make()), images, torch.device("cpu"))
