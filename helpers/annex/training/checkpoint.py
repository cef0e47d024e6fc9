"""A training's checkpoint: one file, replaced whole after each epoch, never unpickled blindly."""

import os
import re
import time
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn


def checkpoint_path(
    data_dir: str | Path, model: str, data: str, images: int, epochs: int, seed: int
) -> Path:
    """Where a training's checkpoint goes by default: beside the data, which git ignores."""
    model = re.sub(r"[^\w.-]+", "_", model)
    name = f"{model}-{data}-{images}-images-{epochs}-epochs-seed-{seed}.pt"
    return Path(data_dir) / "checkpoints" / name


def save_checkpoint(
    path: str | Path | None, content: dict, network: nn.Module, optimizer: torch.optim.Optimizer
) -> float:
    """Write `content`, weights and optimizer state, or nothing if `path` is None.

    Returns
    -------
    Seconds it took.

    Raises
    ------
    OSError
        The file cannot be written; the one before, if any, is untouched.
    """
    start = time.perf_counter()
    if path is None:
        return 0.0
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    states = {"state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content | states, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch.save tells a full disk by RuntimeError
        raise OSError(
            f"checkpoint {path} cannot be written ({error}): free space, or give another folder "
            "(data_dir in the notebook)"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return time.perf_counter() - start


def load_checkpoint(
    path: str | Path | None, training: dict, network: nn.Module, optimizer: torch.optim.Optimizer
) -> dict:
    """Put network and optimizer where the checkpoint left them; returns what is done.

    Without a file nothing is done and nothing changed.

    Parameters
    ----------
    training : what the checkpoint must have been made with: model, seed, epochs, images, …

    Raises
    ------
    ValueError
        It is damaged, no checkpoint of this project, or another training's.
    """
    if path is None or not Path(path).exists():
        return {"epoch": 0, "losses": [], "epoch_s": [], "trained_on": ""}
    found = _read(Path(path))
    other = {k: found[k] for k, value in training.items() if found[k] != value}
    if other:
        told = ", ".join(f"{k}={v!r} (asked for: {training[k]!r})" for k, v in other.items())
        raise ValueError(
            f"checkpoint {path} is another training's: {told}; delete it to train anew"
        )
    try:
        network.load_state_dict(found["state_dict"])
        optimizer.load_state_dict(found["optimizer"])
        for group in optimizer.param_groups:  # the device that goes on decides, not the one before
            group["fused"] = optimizer.defaults["fused"]
    except (RuntimeError, ValueError) as error:  # the user's own model was changed since
        raise ValueError(
            f"checkpoint {path} does not fit {training['model']} as it is now: delete it "
            "to train anew"
        ) from error
    return {key: found[key] for key in ("epoch", "losses", "epoch_s", "trained_on")}


def _read(path: Path) -> dict:
    keys = {"model", "seed", "epochs", "images", "data", "recipe", "state_dict", "optimizer"}
    keys |= {"epoch", "losses", "epoch_s", "trained_on"}
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        raise ValueError(
            f"checkpoint {path} cannot be read ({type(error).__name__}): delete it to train anew"
        ) from error
    if not isinstance(found, dict) or not keys <= found.keys():
        raise ValueError(
            f"checkpoint {path} was not written by this training: move it away to train anew"
        )
    return found
