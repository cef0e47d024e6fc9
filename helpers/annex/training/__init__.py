"""A baseline worth comparing: a model trained from scratch in about a minute on a fast GPU.

The images stay on the device as uint8 and are augmented there. The recipe is the usual one for
short trainings (after KellerJordan/cifar10-zoo and myrtle.ai's "How to train your ResNet"): SGD
with Nesterov momentum, a triangular learning rate, weight decay on weights alone, label smoothing;
on a GPU in FP16 and channels_last, as CUDA graphs.
"""

import copy
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from helpers.annex.training.augmentation import DEGREES, augmented_batches
from helpers.annex.training.checkpoint import load_checkpoint, save_checkpoint, training_key
from helpers.annex.training.forward import forward_of
from helpers.cifar10 import Cifar10
from helpers.environment.progress import track
from helpers.models import build_model, try_forward
from helpers.models.trial import own_random_state, seed_generators
from helpers.parameters import Parameters

CPU_IMAGES = 500  # enough to see a CPU learn in about a minute an epoch


@dataclass(frozen=True)
class Recipe:
    """How a short training moves the weights: as cifar10-zoo's ResNet-18, but label smoothing."""

    batch_size: int = 500  # fewer where there are few images: see `batch_for`
    peak_rate: float = 0.2  # learning rate at the peak, for 500 images a batch
    warmup: float = 0.2  # share of the steps before the peak
    momentum: float = 0.9
    weight_decay: float = 5e-4  # not of biases and batch-norms
    label_smoothing: float = 0.1
    cutout: int = 12  # side (pixels, 0 to 32) of the square that is covered in each image
    upright: float = 0.5  # share of the epochs, the last ones, without rotation: as test images are

    def batch_for(self, images: int) -> int:
        """Images in a batch: at least 20 steps an epoch, or a short training learns nothing."""
        return min(self.batch_size, max(2, images // 20))

    def rate(self, progress: float, batch: int) -> float:
        """Learning rate at `progress` in [0, 1): up from a fifth of the peak, then down to 0."""
        share = np.interp(progress, [0, self.warmup, 1], [0.2, 1, 0])
        return float(self.peak_rate * batch / 500 * share)


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A trained network and what it took; losses are the epochs' means, on augmented images."""

    network: nn.Module  # in eval mode, in the default memory layout, on `device`
    losses: list[float]
    epoch_s: list[float]
    trained_on: str  # device and precision
    from_checkpoint: bool  # read from the file of an earlier, equal training
    unsaved: str = ""  # why the checkpoint could not be written


def train(
    model: str,
    data: Cifar10,
    *,
    epochs: int,
    device: torch.device,
    seed: int = 0,
    checkpoint: Path | None = None,
    limit: int | None = None,
    recipe: Recipe | None = None,
) -> TrainingResult:
    """Train a model that `build_model` knows, or read an equal training that `checkpoint` holds.

    `checkpoint` is written after the last epoch, over another training's; `limit`: train on the
    first so many images only. The same seed gives the same initial weights, order and augmentation
    on every device, and on a CPU (with as many threads) the same final weights to the bit; on a GPU
    cuDNN sums gradients in an order of its own.

    Raises ModelNameError where the model is none or gives no logits, ValueError for a
    checkpoint that is damaged or foreign, RuntimeError once the loss is no longer finite.
    """
    recipe, network = recipe or Recipe(), build_model(model, seed)
    arrays = data.train_images[:limit], data.train_labels[:limit]
    images = len(arrays[1])
    settings = {"model": model, "seed": seed, "epochs": epochs, "images": images}
    key = training_key(network, settings, recipe, data.fingerprint["train"])
    done, unsaved = load_checkpoint(checkpoint, key) if checkpoint else None, ""
    if not (read := done is not None):
        # A copy: variants choose their own layout, so the trained weights go back into a network
        # laid out as `build_model` does it.
        moved = copy.deepcopy(network)
        _check_trainable(moved, recipe.batch_for(images), device)
        moved = moved.to(memory_format=torch.channels_last)
        tensors = (torch.from_numpy(array).to(device) for array in arrays)
        done = settings | {"key": key} | _train(moved, *tensors, recipe, epochs, seed)
        if checkpoint:
            unsaved = save_checkpoint(checkpoint, done)
    network.load_state_dict(done["state_dict"])
    took = (done[name] for name in ("losses", "epoch_s", "trained_on"))
    return TrainingResult(network.to(device).eval(), *took, read, unsaved)


def train_model(parameters: Parameters, data: Cifar10, device) -> nn.Module:
    """Train the parameters' model, its checkpoint beside the data; on a CPU on fewer images.

    What was done is told, in words, by the network's `built_from`.
    """
    epochs, seed = parameters.train_epochs, parameters.seed
    limit = len(data.train_labels) if device.type == "cuda" else CPU_IMAGES
    model = re.sub(r"[^\w.-]+", "_", parameters.model)
    name = f"{model}-{data.name}-{limit}-images-{epochs}-epochs-seed-{seed}.pt"
    path = Path(parameters.data_dir) / "checkpoints" / name
    settings = {"epochs": epochs, "seed": seed, "device": device, "limit": limit}
    trained = train(parameters.model, data, checkpoint=path, **settings)
    told = f"trained {epochs} × {limit} images, {trained.trained_on}: {sum(trained.epoch_s):.0f} s"
    told += f" (checkpoint {name})" if trained.from_checkpoint else ""
    told += f" (no checkpoint: {trained.unsaved})" if trained.unsaved else ""
    trained.network.built_from = replace(trained.network.built_from, trained=(told,))
    return trained.network


def _check_trainable(network: nn.Module, batch: int, device: torch.device) -> None:
    """Try one forward in training mode; leaves `network` on the device and in that mode."""
    before = copy.deepcopy(network.state_dict())
    try_forward(network, torch.zeros(batch, 3, 32, 32), device, training=True)
    network.load_state_dict(before)  # batch-norms have averaged over the trial


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    decayed = {"params": [p for p in parameters if p.ndim > 1]}
    others = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
    how = {"lr": recipe.peak_rate, "momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
    sgd = torch.optim.SGD([decayed, others], **how, nesterov=True, fused=parameters[0].is_cuda)
    for weight in parameters:  # a first step that overflows in FP16 would leave it uninitialised
        sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return sgd


def _train(network, images, labels, recipe: Recipe, epochs: int, seed: int) -> dict:
    """Every epoch, on images (n, 32, 32, 3) uint8 on the device; returns what is to be kept."""
    device, losses, seconds = images.device, [], []
    optimizer, batch = _optimizer(network, recipe), recipe.batch_for(len(labels))
    steps = len(labels) // batch
    drawn = partial(augmented_batches, images, labels, batch, recipe.cutout)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    with ExitStack() as stack:
        # Fastest cuDNN kernels, gradients on; switch and random state are restored afterwards.
        stack.callback(setattr, torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
        torch.backends.cudnn.benchmark = True
        stack.enter_context(own_random_state())
        stack.enter_context(torch.enable_grad())
        forward, how = stack.enter_context(forward_of(network, next(drawn())[0]))
        for epoch in range(epochs):
            start = time.perf_counter()
            # Whatever the example or the capture drew: each epoch has its own seed.
            seeds = np.random.SeedSequence((seed, epoch))
            seed_generators(int(seeds.generate_state(1, np.uint64)[0]))
            total, told = torch.zeros((), device=device), f"epoch {epoch + 1}/{epochs}"
            batches = drawn(degrees=DEGREES if epoch < epochs * (1 - recipe.upright) else 0)
            for step, (inputs, right) in enumerate(track(batches, steps, told)):
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate((epoch + step / steps) / epochs, batch)
                optimizer.zero_grad()
                scores = forward(inputs)
                loss = F.cross_entropy(scores, right, label_smoothing=recipe.label_smoothing)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                total += loss.detach()
            losses.append(float(total) / steps)  # the only wait for the device
            seconds.append(time.perf_counter() - start)
            scale = scaler.get_scale()  # halved at each step whose gradients were not finite
            if not np.isfinite(losses[-1]) or scale < 1:
                told = f"loss {losses[-1]}, gradients scaled by {scale}"
                raise RuntimeError(f"the training diverged in epoch {epoch + 1}: {told}")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    done = {"losses": losses, "epoch_s": seconds, "trained_on": f"{name}, {how}"}
    return done | {"state_dict": network.state_dict()}
