"""Weights from a file: torch's restricted loader or safetensors; nothing foreign is unpickled.

Read are a bare state_dict, one under a usual key ('state_dict', 'model', …), and keys with the
prefixes that DataParallel, torch.compile and training frameworks put before them.
"""

import re
from collections.abc import Mapping

import torch
from safetensors import safe_open
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from helpers.models.trial import ModelNameError

SUFFIXES = (".pt", ".pth", ".safetensors")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = re.compile(r"^(?:(?:module|_orig_mod|model|net)\.)+|(?<=\.)_orig_mod\.")
SAVE = "save {'model': name, 'state_dict': model.state_dict()}, or model.state_dict() alone"


class _Foreign:
    """Stands in for a Python object beside the weights: its own code is not run."""

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


def read_weights(path: str) -> tuple[Mapping[str, torch.Tensor], str, tuple[str, ...]]:
    """Read (weights on the CPU, the model's name in the file or "", keys left unread).

    Raises ModelNameError where the file is damaged, or holds no weights or several models'.
    """
    try:
        stored = _read_safetensors(path) if path.endswith(".safetensors") else _read_torch(path)
    except Exception as error:  # damaged, or more than weights: torch raises many types
        line = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).partition("\n")[0]
        raise ModelNameError(f"model={path!r} cannot be read as weights ({line}): {SAVE}") from error
    if _are_weights(stored):
        return stored, "", ()
    if not isinstance(stored, Mapping):
        raise ModelNameError(f"model={path!r} holds no weights, but {type(stored)}: {SAVE}")
    found = [key for key in WRAPPERS if _are_weights(stored.get(key))]
    if len(found) != 1:
        raise ModelNameError(
            f"model={path!r} holds weights of {len(found)} models; its keys: {_some(stored)}. {SAVE}"
        )
    name = next((stored[k] for k in ("model", "arch") if isinstance(stored.get(k), str)), "")
    foreign = tuple(str(key) for key, value in stored.items() if isinstance(value, _Foreign))
    return stored[found[0]], name, foreign


def fill(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Put weights into `network`; returns the prefixes that had to be stripped from their keys.

    Raises RuntimeError, torch's own, with the keys and shapes that do not fit.
    """
    stripped: tuple[str, ...] = ()
    shorter = {PREFIXES.sub("", key): value for key, value in tensors.items()}
    if network.state_dict().keys() != tensors.keys() and len(shorter) == len(tensors):
        found = (prefix for key in tensors for prefix in PREFIXES.findall(key))
        tensors, stripped = shorter, tuple(dict.fromkeys(found))
    network.load_state_dict(tensors)
    return stripped


def _read_safetensors(path: str) -> dict:
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        return {**(file.metadata() or {}), "state_dict": tensors}


def _read_torch(path: str):
    """torch.load, with a stand-in for every type that its restricted loader would refuse."""
    try:
        unsafe = get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # the format before torch 1.6
        unsafe = []
    with safe_globals([(_Foreign, name) for name in unsafe]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(f"{error}; beside weights: {_some(unsafe) or 'nothing'}") from error


def _are_weights(stored) -> bool:
    return (
        isinstance(stored, Mapping)
        and bool(stored)
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in stored.items())
    )


def _some(names) -> str:
    return ", ".join(str(name)[:120] for name in list(names)[:5])
