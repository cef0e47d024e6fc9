"""A finished training's file: read instead of training again, where everything is the same."""

import hashlib
import os
from pathlib import Path

import torch
from torch import nn

KEYS = {"key", "model", "state_dict", "losses", "epoch_s", "trained_on"}


def training_key(network: nn.Module, *settings) -> str:
    """A hash of the untrained network, its layers and weights, and of all settings.

    A name or a path does not do: what lies behind it may have changed since.
    """
    found = hashlib.sha256(repr((settings, network)).encode())
    for name, value in network.state_dict().items():
        found.update(name.encode())
        if isinstance(value, torch.Tensor):
            data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            found.update(f"{value.dtype} {tuple(value.shape)}".encode() + data.numpy().tobytes())
    return found.hexdigest()


def save_checkpoint(path: Path, content: dict) -> None:
    """Replace the file whole; where it cannot be written, the one before is untouched."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.save(content, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path: Path, key: str) -> dict | None:
    """Read a finished training, or return None where there is none with this key.

    Raises ValueError for a damaged or foreign file, so that it is not overwritten.
    """
    if not path.exists():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        raise ValueError(f"checkpoint {path} cannot be read: delete it to train anew") from error
    if not isinstance(found, dict) or not found.keys() >= KEYS:
        raise ValueError(f"checkpoint {path} is not of this training: move it away to train anew")
    return found if found["key"] == key else None
