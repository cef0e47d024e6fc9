"""The notebook's training: its checkpoint lies beside the data, a CPU takes fewer images."""

import torch
from torch import nn

from helpers.annex.training import CPU_IMAGES, checkpoint_path, train
from helpers.cifar10 import Cifar10
from helpers.parameters import Parameters


def train_model(
    parameters: Parameters, network: nn.Module, data: Cifar10, device: torch.device
) -> tuple[nn.Module, str]:
    """Train the parameters' model for `train_epochs`; 0 leaves `network` as it is.

    Returns the network and what was done, in words.
    """
    epochs, seed = parameters.train_epochs, parameters.seed
    if not epochs:
        return network, ""
    limit = len(data.train_labels) if device.type == "cuda" else CPU_IMAGES
    path = checkpoint_path(parameters.data_dir, parameters.model, data.name, limit, epochs, seed)
    settings = {"epochs": epochs, "seed": seed, "device": device, "limit": limit}
    trained = train(parameters.model, data, checkpoint=path, **settings)
    read = f" (checkpoint {path.name})" if trained.from_checkpoint else ""
    told = f"{epochs} × {limit} images, {trained.trained_on}: {trained.train_s:.0f} s{read}"
    return trained.network, told
