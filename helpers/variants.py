"""What is measured: the models, built the same way every time from their name and a seed."""

import torch
from torch import nn
from torchvision import models

CLASSES = 10


def build_model(name: str = "resnet18", seed: int = 0) -> nn.Module:
    """Build a torchvision classification model with random weights and 10 outputs, on the CPU.

    The same name and seed give the same weights; the caller's random state is left as it was.

    Raises
    ------
    ValueError
        torchvision has no such classification model.
    """
    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(
            f"model={name!r} is not a torchvision classification model: use for instance "
            f"'resnet18', or one of {', '.join(known[:5])}, … (torchvision.models.list_models())"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return models.get_model(name, weights=None, num_classes=CLASSES)
