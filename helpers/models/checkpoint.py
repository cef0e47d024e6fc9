"""Weights from a file, bare or under a usual key; nothing foreign in it is unpickled."""

import re
from collections.abc import Mapping
from contextlib import suppress

import safetensors.torch
import torch
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from helpers.models.trial import ModelNameError

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
# Of DataParallel, torch.compile and training frameworks, before the keys or inside them
PREFIXES = re.compile(r"^(?:(?:module|_orig_mod|model|net)\.)+|(?<=\.)_orig_mod\.")
SAVE = "save {'model': name, 'state_dict': model.state_dict()}, or model.state_dict() alone"


class PickledObject:
    """Stands in for a Python object beside the weights: its own code is not run."""

    def __init__(self, *args):
        pass

    __setstate__ = __init__


def read_weights(path: str) -> tuple[Mapping[str, torch.Tensor], str, tuple[str, ...]]:
    """Read (weights on the CPU, the model's name in the file or "", keys left unread)."""
    unsafe: list[str] = []
    try:
        if path.endswith(".safetensors"):
            return safetensors.torch.load_file(path), "", ()
        with suppress(ValueError):  # the format before torch 1.6
            unsafe = get_unsafe_globals_in_checkpoint(path)
        # A stand-in for every type that the restricted loader would refuse.
        with safe_globals([(PickledObject, name) for name in unsafe]):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged, or more than weights: torch raises many types
        told = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).partition("\n")[0]
        told = f"{told}; types beside weights: {unsafe}"
        raise ModelNameError(f"model={path!r} cannot be read ({told}): {SAVE}") from error
    entries = dict(stored) if isinstance(stored, Mapping) else {}
    found = [own for own in (entries, *map(entries.get, WRAPPERS)) if _are_weights(own)]
    if len(found) != 1:
        told = f"{type(stored).__name__} with keys {list(entries)[:8]}"
        raise ModelNameError(f"model={path!r} holds weights of no one model, but {told}: {SAVE}")
    name = next((entries[k] for k in ("model", "arch") if isinstance(entries.get(k), str)), "")
    foreign = (str(key) for key, value in entries.items() if isinstance(value, PickledObject))
    return found[0], name, tuple(foreign)


def _are_weights(stored) -> bool:
    pairs = stored.items() if isinstance(stored, Mapping) else ()
    return bool(pairs) and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in pairs)


def fill(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Put weights into `network`; returns the prefixes that had to be stripped from their keys."""
    found: list[str] = []
    shorter = {PREFIXES.sub("", key): value for key, value in tensors.items()}
    if network.state_dict().keys() != tensors.keys() and len(shorter) == len(tensors):
        found = [prefix for key in tensors for prefix in PREFIXES.findall(key)]
        tensors = shorter
    network.load_state_dict(tensors)
    return tuple(dict.fromkeys(found))
