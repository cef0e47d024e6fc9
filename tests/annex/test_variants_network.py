"""Rewritten networks compute the same function in fewer layers or weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.annex.variants.network import (
    ConvEpilogue,
    crop_to_image,
    fold_batch_norm,
    fuse_epilogues,
)
from helpers.models import build_model

REWRITINGS = (fold_batch_norm, crop_to_image, fuse_epilogues)
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


@pytest.mark.parametrize("rewrite", REWRITINGS)
@pytest.mark.parametrize("name", ["resnet18", "resnet18_cifar", "densenet121", "regnet_y_400mf"])
def test_the_same_function_of_the_image(name, rewrite):
    with torch.no_grad():
        network = shaken(name)
        expected = network(IMAGES)
        found = rewrite(network, IMAGES)(IMAGES)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_resnet18_becomes_twenty_convolutions_with_nothing_between():
    with torch.no_grad():
        network = fuse_epilogues(crop_to_image(shaken("resnet18"), IMAGES), IMAGES)
    kinds = [type(m) for m in network.modules() if not list(m.children())]
    assert kinds.count(ConvEpilogue) == 17
    assert kinds.count(nn.Conv2d) == 3  # on the shortcuts
    assert not {nn.BatchNorm2d, nn.ReLU} & set(kinds)
    assert all(m.bias is None for m in network.modules() if isinstance(m, nn.Conv2d))


def test_most_of_resnet18_only_ever_meets_padding_on_small_images():
    network = ready(build_model("resnet18"))
    whole = sum(p.numel() for p in network.parameters())
    with torch.no_grad():
        crop_to_image(network, IMAGES)
    assert network.layer4[1].conv1.kernel_size == (1, 1)
    assert network.layer4[0].conv1.kernel_size == (2, 2)  # stride 2 over 2x2 pixels
    assert network.layer3[1].conv1.kernel_size == (3, 3)
    assert isinstance(network.avgpool, nn.Identity)
    assert sum(p.numel() for p in network.parameters()) < 0.4 * whole


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 5, padding=2),
        nn.Conv2d(3, 4, 7, padding=3, stride=2),
        nn.Conv2d(3, 4, 3, padding=2, dilation=2),
        nn.Conv2d(3, 4, (3, 1), padding=(1, 0)),
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(3, 3, 3, padding=1, groups=3),
        nn.Conv2d(3, 4, 1, padding=1),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 3), (3, 2)])
def test_cropping_is_exact_whatever_the_convolution(conv, size):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    network = ready(nn.Sequential(conv))
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(crop_to_image(network, x)(x), expected, atol=1e-6, rtol=1e-5)


def test_a_layer_used_at_two_sizes_is_not_cropped():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            return self.conv(F.avg_pool2d(self.conv(x), 2))

    network = ready(Twice())
    crop_to_image(network, torch.zeros(1, 3, 2, 2))
    assert network.conv.kernel_size == (3, 3)


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


def test_what_is_used_elsewhere_is_not_fused():
    network, x = ready(Shared()), IMAGES[:, :, :4, :4]
    with torch.no_grad():
        expected = network(x)
        fused = fuse_epilogues(network, x)
        assert not any(isinstance(m, ConvEpilogue) for m in fused.modules())
        torch.testing.assert_close(fused(x), expected)


class Underscores(nn.Module):
    """Two layers whose names differ in a dot and an underscore."""

    def __init__(self):
        super().__init__()
        self.branch = nn.ModuleList([nn.Identity(), nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())])
        self.branch_1 = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())

    def forward(self, x):
        return self.branch_1(self.branch[1](x))


def test_layers_whose_names_differ_in_a_dot_stay_apart():
    network = ready(Underscores())
    with torch.no_grad():
        expected = network(IMAGES)
        torch.testing.assert_close(fuse_epilogues(network, IMAGES)(IMAGES), expected)


def test_a_residual_is_added_by_the_main_paths_convolution():
    with torch.no_grad():
        fused = fuse_epilogues(shaken("regnet_y_400mf"), IMAGES)
    added = [n for n in fused.graph.nodes if "epilogue" in str(n.target) and len(n.args) == 2]
    assert added
    assert not any("proj" in str(node.target) for node in added)
