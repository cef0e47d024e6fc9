"""What is measured: a model by name, by the user's own function or from a checkpoint.

- any classification model of torchvision, with random weights;
- `resnet18_cifar`: torchvision's ResNet-18 with a stem made for 32x32 images;
- `package.module:function`, a function without arguments that returns an `nn.Module`;
- a checkpoint `*.pt` or `*.pth`: {"model": name, "state_dict": ...}, or a bare state_dict, read
  by torch's restricted loader: nothing else is unpickled.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, ResNet

from helpers.models.seeding import own_random_state, seed_generators

CLASSES = 10
OWN_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
BARE_GUESSES = ("resnet18", "resnet18_cifar")  # what a state_dict without a name is tried on


class ModelNameError(ValueError):
    """No model can be built from this name, function or file; the message says what would do."""


def build_model(name: str = "resnet18", seed: int = 0, num_classes: int = CLASSES) -> nn.Module:
    """Build a model on the CPU; see the module's docstring for what `name` may be.

    The same name and seed give the same random weights; the caller's random state is left as it
    was. A user's function decides itself how many outputs its model has.

    Raises
    ------
    ModelNameError
        The name is unknown, the function failed or returned something else, or the file is
        missing, damaged, holds more than weights, or weights that fit no known model.
    """
    if _is_path(name):
        return _from_checkpoint(Path(name), num_classes)
    return _seeded(name, seed, num_classes)


def model_problem(name: str) -> str | None:
    """Say what is wrong with a model's name, as far as can be told without running its code."""
    if _is_path(name):
        return None if Path(name).is_file() else f"there is no file {name!r}"
    if OWN_FUNCTION.fullmatch(name) or name in _known():
        return None
    return (
        f"{name!r} is not a torchvision classification model: use for instance 'resnet18', "
        "'resnet18_cifar', another name from torchvision.models.list_models(), "
        "'package.module:function', or a checkpoint's path (*.pt, *.pth)"
    )


def resnet18_cifar(num_classes: int = CLASSES) -> nn.Module:
    """ResNet-18 for 32x32 images: a 3x3 stem of stride 1 and no max-pool, else torchvision's.

    Section 4.2 of He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016) uses this
    stem on CIFAR-10: torchvision's, made for 224x224, leaves 1x1 pixel to the last blocks.
    """
    model = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(
        model.conv1.weight, mode="fan_out", nonlinearity="relu"
    )  # torchvision's
    model.maxpool = nn.Identity()
    return model


def _is_path(name: str) -> bool:
    return name.endswith((".pt", ".pth"))


def _known() -> list[str]:
    return ["resnet18_cifar", *models.list_models(module=models)]


def _seeded(name: str, seed: int, num_classes: int) -> nn.Module:
    if problem := model_problem(name):
        raise ModelNameError(f"model={problem}")
    with own_random_state():
        seed_generators(seed)
        if OWN_FUNCTION.fullmatch(name):
            return _from_function(name)
        if name == "resnet18_cifar":
            return resnet18_cifar(num_classes)
        return models.get_model(name, weights=None, num_classes=num_classes)


def _from_function(name: str) -> nn.Module:
    module, function = name.split(":")
    make = _import_function(name, module, function)
    try:
        model = make()
    except Exception as error:
        raise ModelNameError(
            f"model={name!r}: {function}() raised {type(error).__name__}: {error}; it must run "
            "without arguments"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelNameError(
            f"model={name!r}: {function}() returned {type(model).__name__}, not a torch.nn.Module"
        )
    return model


def _import_function(name: str, module: str, function: str) -> Callable:
    try:
        found = getattr(importlib.import_module(module), function, None)
    except Exception as error:
        raise ModelNameError(
            f"model={name!r}: importing {module} raised {type(error).__name__}: {error}; start "
            "from the folder it lies in, or install it"
        ) from error
    if not callable(found):
        raise ModelNameError(
            f"model={name!r}: module {module} has no function {function!r}; write "
            "'package.module:function'"
        )
    return found


def _from_checkpoint(path: Path, num_classes: int) -> nn.Module:
    stored = _load(path)
    if "state_dict" in stored:
        name = stored.get("model")
        # A file must not choose code to run: names of functions and other files are refused here.
        if name not in _known():
            raise ModelNameError(
                f"model={str(path)!r} says it holds the weights of {name!r}: 'model' must be a "
                "torchvision classification model or 'resnet18_cifar'"
            )
        names, weights = (name,), stored["state_dict"]
    else:
        names, weights = BARE_GUESSES, stored
    if not _are_weights(weights):
        raise ModelNameError(
            f"model={str(path)!r} holds no weights: save {{'model': name, 'state_dict': "
            "model.state_dict()}}, or model.state_dict() alone"
        )
    problems = []
    for name in names:
        model = _seeded(name, 0, num_classes)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            problems.append(f"{name}: {_first_mismatches(error)}")
        else:
            return model
    raise ModelNameError(
        f"model={str(path)!r}: the weights fit no model with {num_classes} classes that was tried "
        f"({'; '.join(problems)})"
    )


def _load(path: Path) -> Mapping:
    if not path.is_file():
        raise ModelNameError(f"model={str(path)!r}: there is no such file")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged, or more than weights: torch raises many types
        raise ModelNameError(
            f"model={str(path)!r} cannot be read as weights ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}); whole pickled models "
            "are refused: save model.state_dict()"
        ) from error
    if not isinstance(stored, Mapping):
        raise ModelNameError(
            f"model={str(path)!r} holds {type(stored).__name__}, not weights: save "
            "model.state_dict()"
        )
    return stored


def _are_weights(weights) -> bool:
    return (
        isinstance(weights, Mapping)
        and bool(weights)
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in weights.items())
    )


def _first_mismatches(error: RuntimeError, limit: int = 2) -> str:
    lines = [line.strip() for line in str(error).splitlines()[1:]]
    shown = [line if len(line) <= 160 else line[:159] + "…" for line in lines[:limit]]
    return " ".join(shown) or str(error)
