"""First layers that suit FP16 with channels last: images of four channels, a faster pooling."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from helpers.annex.variants.network import NothingToChange, replace

CHANNELS = 4  # cuDNN's Tensor Core kernels read 8 bytes at once
NOTHING = "le modèle n'a ni convolution de l'image à compléter, ni max-pooling"


class Pool3d(nn.Module):
    """The same max-pooling, by PyTorch's 3D kernel: its 2D one is slow with channels last."""

    def __init__(self, pool: nn.MaxPool2d):
        super().__init__()
        size, stride, padding, dilation = map(
            _pair, (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        )
        flat = {"padding": (0, *padding), "dilation": (1, *dilation), "ceil_mode": pool.ceil_mode}
        self.pool = nn.MaxPool3d((1, *size), (1, *stride), **flat)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """An image is a volume of depth 1."""
        return self.pool(x.unsqueeze(2)).squeeze(2)


def suit_stem(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """Complete the image's channels with zeros to a multiple of 4; pool by the 3D kernel.

    Every convolution of as many channels as the image has is taken for one that reads it.

    Raises
    ------
    NothingToChange
        There is neither such a convolution nor a max-pooling.
    """
    suited: dict[nn.Module, nn.Module] = {}  # a module may stand in several places
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if not name:
            continue  # the network itself has no place where it could be replaced
        if module not in suited:
            suited[module] = _suited(module, example.shape[1])
        if suited[module] is not module:
            replace(network, name, suited[module])
    if all(new is old for old, new in suited.items()):
        raise NothingToChange(NOTHING)
    return network


def _suited(module: nn.Module, channels: int) -> nn.Module:
    if isinstance(module, nn.MaxPool2d) and not module.return_indices:
        return Pool3d(module)
    missing = -channels % CHANNELS
    if not missing or not _reads_image(module, channels):
        return module
    # torch calls it 3d: it pads the last three dimensions, here channels, height and width
    padding = (0, 0, 0, 0, 0, missing)
    module.weight = nn.Parameter(F.pad(module.weight, padding), False)
    module.in_channels += missing
    return nn.Sequential(nn.ZeroPad3d(padding), module)


def _reads_image(module: nn.Module, channels: int) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == 1 and module.in_channels == channels


def _pair(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
