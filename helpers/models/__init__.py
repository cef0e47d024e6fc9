"""What is measured: a classification model of torchvision with random weights, `resnet18_cifar`,
`package.module:function` (without arguments, returns an `nn.Module`), a file of weights, or
`NAME@FILE`: these weights in that model.
"""

import importlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, ResNet

from helpers.clocks.checks import DISTINCT_INPUTS
from helpers.models.accuracy import measure_accuracy as measure_accuracy
from helpers.models.checkpoint import fill, read_weights
from helpers.models.trial import ModelNameError, own_random_state, seed_generators, users_code
from helpers.models.trial import try_forward as try_forward
from helpers.parameters import Parameters

SUFFIXES = (".pt", ".pth", ".safetensors")
OWN_FUNCTION = re.compile(r"[\w.]+:\w+")
BARE_GUESSES = ("resnet18", "resnet18_cifar")  # what weights without a name are tried in


@dataclass(frozen=True)
class Origin:
    """What `build_model` built; a module carries it as `built_from`."""

    architecture: str
    weights: str = ""  # the file; "": random ones, or what the user's function gives
    guessed: bool = False  # from keys and shapes alone: pooling, strides, … may be others
    stripped: tuple[str, ...] = ()  # prefixes of the file's keys
    ignored: tuple[str, ...] = ()  # what else the file holds and was not read
    trained: tuple[str, ...] = ()  # how the weights were trained since

    def __str__(self) -> str:
        guess = f"a GUESS from names and shapes alone; to name it: NAME@{self.weights}"
        unread = "weights as returned" if ":" in self.architecture else "random weights"
        told = [self.architecture, self.weights or unread, *self.trained] + [guess] * self.guessed
        told += [f"stripped from the keys: {prefix}" for prefix in self.stripped]
        return "; ".join([*told, *(f"not read: {name}" for name in self.ignored)])


def prepare(
    parameters: Parameters, device: torch.device
) -> tuple[nn.Module, tuple[str, list[torch.Tensor]] | None]:
    """Build the parameters' model and try one forward on `device`; returns it and its own inputs.

    These are None for CIFAR-10's images, else their name in the results and a few batches: of the
    module's `example_inputs` (n, …) where it has them, or of random numbers of `input_shape`.
    """
    network, size = build_model(parameters.model, parameters.seed), parameters.batch_size
    example, name = getattr(network, "example_inputs", None), "example"
    images = example is None and parameters.input_shape == Parameters.input_shape
    if example is None:
        name, count = "random", size if images else size * DISTINCT_INPUTS
        shape, drawn = parameters.input_shape.split("x"), torch.Generator()
        example = torch.randn(count, *map(int, shape), generator=drawn.manual_seed(parameters.seed))
    elif not isinstance(example, torch.Tensor) or example.shape[:1] < (size,):
        found = example.shape if isinstance(example, torch.Tensor) else type(example)
        told = f"example_inputs must be a tensor of batch_size={size} or more, not {found}"
        raise ModelNameError(f"model={parameters.model!r}: its {told}")
    kinds = {one.dtype for one in (example, *network.parameters()) if one.is_floating_point()}
    if kinds - {torch.float32}:
        told = f"it holds {kinds}, and FP32 is measured: .float() it; for others, -p variants fp16"
        raise ModelNameError(f"model={parameters.model!r}: {told}")
    batches = [own.clone() for own in example.split(size)[:DISTINCT_INPUTS] if len(own) == size]
    classes = try_forward(network, batches[0], device, scored=images)
    if classes != 10 and (images or parameters.train_epochs):
        told = "CIFAR-10 has 10 classes; to time it alone set its example_inputs, no train_epochs"
        raise ModelNameError(f"model={parameters.model!r} returns {classes} scores: {told}")
    return network, None if images else (name, batches)


def build_model(name: str = "resnet18", seed: int = 0) -> nn.Module:
    """Build a model of 10 classes on the CPU, as the module's docstring says; `seed`: its weights'.

    The caller's random state is left as it was; what a user's function raises is raised.
    """
    if problem := model_problem(name):
        raise ModelNameError(f"model: {problem}")
    architecture, path = _split(name)
    if path:
        return _from_file(name, architecture, path)
    network = _seeded(name, seed)
    network.built_from = Origin(name)
    return network


def model_problem(name: str) -> str | None:
    """Say what is wrong with a model's name, as far as can be told without running its code."""
    architecture, path = _split(name)
    if path:
        return None if Path(path).is_file() else f"there is no file {path!r}"
    told = f"{name!r} is not a torchvision classification model: use 'resnet18', 'resnet18_cifar', "
    told += f"another of its list_models(), 'module:function', FILE{SUFFIXES} or NAME@FILE"
    return None if _is_named(architecture) else told


def resnet18_cifar() -> nn.Module:
    """ResNet-18 for 32x32 images: 3x3 stem of stride 1, no max-pool (He et al. 2016, §4.2)."""
    model = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def _is_named(name: str) -> bool:
    known = name == "resnet18_cifar" or name in models.list_models(module=models)
    return known or OWN_FUNCTION.fullmatch(name) is not None


def _split(name: str) -> tuple[str, str]:
    """(architecture, file), either may be empty; a path may have an '@' of its own."""
    if not name.endswith(SUFFIXES):
        return name, ""
    architecture, _, path = name.partition("@")
    return (architecture, path) if _is_named(architecture) else ("", name)


def _seeded(name: str, seed: int = 0) -> nn.Module:
    with own_random_state(), users_code(f"model={name!r}"):
        seed_generators(seed)
        if name == "resnet18_cifar":
            return resnet18_cifar()
        if ":" not in name:
            network = models.get_model(name, weights=None, num_classes=10)
            for layer in network.modules():  # ViT's head of zeros answers alike to all images
                if isinstance(layer, nn.Linear) and not layer.weight.any():
                    layer.reset_parameters()
            return network
        module, function = name.split(":")
        found = _imported(module)
        if not hasattr(found, function):
            where = getattr(found, "__file__", None) or module  # maybe another than was meant
            raise ModelNameError(f"model={name!r}: there is no {function!r} in {where}")
        try:
            network = getattr(found, function)()
        except TypeError as error:
            error.add_note(f"model={name!r} must be a function without arguments, not a module")
            raise
    if not isinstance(network, nn.Module):
        raise ModelNameError(f"model={name!r} returned {type(network)}, not a torch.nn.Module")
    return network


def _imported(module: str):
    """A module of the user's: from PYTHONPATH, the caller's folder or beside the notebook."""
    # The shell's PWD is the caller's folder also where papermill starts the kernel elsewhere.
    folders = [os.getcwd(), os.environ.get("PWD", "."), str(Path(__file__).parents[2])]
    # They stay: fresh processes get the same path.
    sys.path += [folder for folder in dict.fromkeys(folders) if folder not in sys.path]
    importlib.invalidate_caches()  # the file may be younger than the kernel
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # what the user's module imports
        told = f"put it into {' or '.join(dict.fromkeys(folders))}, or its folder into PYTHONPATH"
        told = f"write {module[:-3]}:function" if module.endswith(".py") else told
        raise ModelNameError(f"model: there is no module {module!r}: {told}") from error


def _from_file(given: str, architecture: str, path: str) -> nn.Module:
    tensors, inside, ignored = read_weights(path)
    # A file must not choose code to run: a function in it is not called, only one in `model`.
    named = architecture or (inside if ":" not in inside and _is_named(inside) else "")
    problem = f"model={given!r}: name the model it is of, NAME@{path}; it does not fit"
    if named:
        problem = f"model={given!r}: these weights do not fit {named}: "
        problem += "rename the keys or give the model that was trained"
    for name in (named,) if named else BARE_GUESSES:
        network = _seeded(name)
        try:
            network.built_from = Origin(name, path, not named, fill(network, tensors), ignored)
            return network
        except RuntimeError as error:
            problem += "".join(f"\n{line[:200]}" for line in str(error).splitlines()[:6])
    raise ModelNameError(problem)
