"""A finished training's file: read instead of training again, where everything is the same."""

import hashlib
import io
from pathlib import Path

import torch
from torch import nn

from helpers.environment.facts import first_line
from helpers.results.files import ResultsError, write_file


def training_key(network: nn.Module, *settings) -> str:
    """A hash of the untrained network, its layers and weights, and of all settings.

    A name or a path does not do: what lies behind it may have changed since.
    """
    torch.save((repr((settings, network)), network.state_dict()), buffer := io.BytesIO())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def save_checkpoint(path: Path, content: dict) -> str:
    """Replace the file whole, or leave the one before untouched and say why."""
    torch.save(content, buffer := io.BytesIO())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, buffer.getvalue())
        return ""
    except (ResultsError, OSError) as error:  # data may be read-only: the training is done
        return first_line(error)


def load_checkpoint(path: Path, key: str) -> dict | None:
    """Read a finished training, or return None where there is none with this key.

    Raises ValueError for a damaged or foreign file, so that it is not overwritten.
    """
    if not path.exists():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        return found if found["key"] == key else None
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        raise ValueError(f"{path} is no checkpoint: move it away to train anew") from error
