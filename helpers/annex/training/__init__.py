"""A baseline worth comparing: a model trained from scratch in about a minute on a fast GPU.

The images stay on the device as uint8 and are augmented there (`training.augmentation`). The recipe
is the usual one for short trainings: SGD with Nesterov momentum, a triangular learning rate, weight
decay on weights alone, label smoothing, bfloat16 in channels_last, compiled, on a GPU (after
KellerJordan/cifar10-zoo and myrtle.ai's "How to train your ResNet").
"""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from helpers.annex.training.augmentation import AugmentedEpoch
from helpers.annex.training.checkpoint import load_checkpoint, save_checkpoint, training_key
from helpers.annex.training.forward import forward_of
from helpers.cifar10 import Cifar10
from helpers.environment.progress import track
from helpers.models import ModelNameError, build_model, try_forward
from helpers.models.trial import own_random_state, seed_generators, users_code

CPU_IMAGES = 500  # enough to see a CPU learn in about a minute an epoch


@dataclass(frozen=True)
class Recipe:
    """How a short training moves the weights.

    Batch, rate, decay and cutout are those of KellerJordan/cifar10-zoo's ResNet-18 script; the
    label smoothing is not.
    """

    batch_size: int = 500  # fewer where there are few images: see `batch_for`
    peak_rate: float = 0.2  # learning rate at the peak, for 500 images a batch
    warmup: float = 0.2  # share of the steps before the peak
    momentum: float = 0.9
    weight_decay: float = 5e-4  # not of biases and batch-norms
    label_smoothing: float = 0.1
    cutout: int = 12  # side (pixels, 0 to 32) of the square that is covered in each image

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
    model: str
    seed: int
    epochs: int
    images: int
    batch_size: int
    from_checkpoint: bool  # read from the file of an earlier, equal training
    losses: tuple[float, ...]
    epoch_s: tuple[float, ...]
    setup_s: float  # this call, before its first step: images to the device, compilation
    checkpoint_s: float  # this call, writing the checkpoint: not in epoch_s
    trained_on: str  # device and precision

    @property
    def train_s(self) -> float:
        """Seconds from the first step to the last."""
        return sum(self.epoch_s)


def train(
    model: str,
    data: Cifar10,
    *,
    epochs: int,
    device: torch.device,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    limit: int | None = None,
    recipe: Recipe | None = None,
    progress: Callable = track,
) -> TrainingResult:
    """Train `model`, or read an equal training that `checkpoint` holds.

    The same seed gives the same initial weights, order and augmentation on every device, and on a
    CPU (with as many threads) the same final weights to the bit. On a GPU cuDNN sums gradients in
    an order of its own, so final weights differ from run to run.

    Parameters
    ----------
    model : a name that `build_model` knows.
    checkpoint : file written after the last epoch; replaced if another training's, or None.
    limit : train on the first so many images only; None takes all.
    progress : wraps each epoch's steps, as `helpers.environment.progress.track` does.

    Raises
    ------
    ValueError
        `epochs` or `limit` is out of range; `checkpoint` is damaged or a foreign file;
        ModelNameError where the model cannot be trained on these classes.
    OSError
        The checkpoint cannot be written.
    RuntimeError
        The loss is no longer finite.
    """
    start, recipe = time.perf_counter(), recipe or Recipe()
    there = len(data.train_labels)
    images = there if limit is None else limit
    if epochs < 1 or not 2 <= images <= there:
        raise ValueError(f"epochs={epochs}, limit={limit}: train 1 epoch or more on 2 to {there}")
    network = build_model(model, seed)
    settings = {"model": model, "seed": seed, "epochs": epochs, "images": images}
    key = training_key(network, settings, recipe, data.fingerprint["train"])
    batch, written, setup = recipe.batch_for(images), 0.0, 0.0
    done = load_checkpoint(checkpoint, key) if checkpoint is not None else None
    read = done is not None
    if not read:
        arrays = (data.train_images[:images], data.train_labels[:images])
        tensors = (torch.from_numpy(array).to(device) for array in arrays)
        # A copy: PyTorch picks kernels by the weights' strides, and variants choose their own
        # layout, so the trained weights go back into a network laid out as `build_model` does it.
        moved = _trainable(copy.deepcopy(network), batch, device, data.train_labels)
        moved = moved.to(memory_format=torch.channels_last)
        run = _Run(moved, _optimizer(moved, recipe), *tensors, recipe, batch, epochs, seed)
        done, setup = _train(run, device, start, progress)
        done |= settings | {"key": key}
        if checkpoint is not None:
            start = time.perf_counter()
            save_checkpoint(checkpoint, done)
            written = time.perf_counter() - start
    network.load_state_dict(done["state_dict"])
    return TrainingResult(
        **settings,
        network=network.to(device).eval(),
        batch_size=batch,
        from_checkpoint=read,
        losses=tuple(done["losses"]),
        epoch_s=tuple(done["epoch_s"]),
        setup_s=setup,
        checkpoint_s=written,
        trained_on=done["trained_on"],
    )


@dataclass(frozen=True)
class _Run:
    """What every epoch works on."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    images: torch.Tensor  # (n, 32, 32, 3) uint8, on the device
    labels: torch.Tensor
    recipe: Recipe
    batch: int
    epochs: int
    seed: int


def _trainable(network: nn.Module, batch: int, device, labels: np.ndarray) -> nn.Module:
    """`network` on the device and in training mode, after one forward that says it can be."""
    before = copy.deepcopy(network.state_dict())
    told, wanted = try_forward(network, (batch, 3, 32, 32), device, True), int(labels.max()) + 1
    if told < wanted:
        raise ModelNameError(
            f"the model tells {told} classes apart, the labels are of {wanted}: give it {wanted} "
            "outputs to train it"
        )
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ModelNameError("the model has no weights that could be trained: leave train_epochs=0")
    network.load_state_dict(before)  # batch-norms have averaged over the trial
    return network


def _train(run: _Run, device, start: float, progress: Callable) -> tuple[dict, float]:
    """Every epoch; returns what the checkpoint keeps, and the seconds before the first step."""
    losses, seconds = [], []
    with ExitStack() as stack:
        stack.enter_context(_training_conditions())
        example = _augmented(run).batch(0)[0]
        forward, how = stack.enter_context(forward_of(run.network, example))
        setup = time.perf_counter() - start
        for epoch in range(run.epochs):
            start = time.perf_counter()
            # What the example or a compilation drew does not matter: each epoch has its own seed.
            seeds = np.random.SeedSequence((run.seed, epoch))
            seed_generators(int(seeds.generate_state(1, np.uint64)[0]))
            losses.append(_train_epoch(run, forward, epoch, progress))
            seconds.append(time.perf_counter() - start)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    done = {"losses": losses, "epoch_s": seconds, "trained_on": f"{name}, {how}"}
    return done | {"state_dict": run.network.state_dict()}, setup


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    decayed = {"params": [p for p in parameters if p.ndim > 1]}
    others = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
    return torch.optim.SGD(
        [decayed, others],
        lr=recipe.peak_rate,  # set anew before each step
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
        fused=parameters[0].is_cuda,
    )


def _augmented(run: _Run) -> AugmentedEpoch:
    return AugmentedEpoch(run.images, run.labels, run.batch, run.recipe.cutout)


def _train_epoch(run: _Run, forward: Callable, epoch: int, progress: Callable) -> float:
    """Train on every image once, in a new order; returns the mean loss.

    Images that do not fill a last batch wait for another epoch's order.

    Raises
    ------
    RuntimeError
        The loss is not finite.
    """
    drawn, steps = _augmented(run), len(run.labels) // run.batch
    total = torch.zeros((), device=run.labels.device)
    for step in progress(range(steps), steps, f"epoch {epoch + 1}/{run.epochs}"):
        rate = run.recipe.rate((epoch + step / steps) / run.epochs, run.batch)
        with users_code("training the model"):
            total += _step(run, forward, *drawn.batch(step), rate)
    loss = float(total) / steps  # the only wait for the device
    if not np.isfinite(loss):
        raise RuntimeError(
            f"the training diverged: mean loss {loss} in epoch {epoch + 1} of {run.epochs}; use a "
            f"lower peak_rate than {run.recipe.peak_rate}"
        )
    return loss


def _step(run: _Run, forward: Callable, inputs, labels, rate: float) -> torch.Tensor:
    """Move the weights once; returns the loss, still on the device."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.zero_grad()
    loss = F.cross_entropy(forward(inputs), labels, label_smoothing=run.recipe.label_smoothing)
    loss.backward()
    run.optimizer.step()
    return loss.detach()


@contextmanager
def _training_conditions() -> Iterator[None]:
    """Fastest cuDNN kernels, gradients on; random state and switches restored afterwards."""
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        with own_random_state(), torch.enable_grad():
            yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
