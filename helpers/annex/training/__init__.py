"""A baseline worth comparing: a model trained from scratch in about a minute on a fast GPU.

The images stay on the device as uint8 and are augmented there (`training.augmentation`). The recipe
is the usual one for short trainings: SGD with Nesterov momentum, a triangular learning rate, weight
decay on weights alone, label smoothing, bfloat16 in channels_last, compiled, on a GPU (after
KellerJordan/cifar10-zoo and myrtle.ai's "How to train your ResNet").
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from helpers.annex.training.augmentation import AugmentedEpoch
from helpers.annex.training.checkpoint import load_checkpoint, save_checkpoint
from helpers.annex.training.forward import forward_of
from helpers.annex.training.recipe import Recipe
from helpers.cifar10 import Cifar10
from helpers.display.french import counted
from helpers.models import build_model
from helpers.models.seeding import own_random_state, seed_generators
from helpers.progress import track

CPU_IMAGES = 500  # enough to see a CPU learn in about a minute an epoch


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A trained network and what it took; losses are the epochs' means, on augmented images."""

    network: nn.Module  # in eval mode, in the default memory layout, on `device`
    model: str
    seed: int
    epochs: int
    images: int
    batch_size: int
    resumed_at: int  # epochs that were already done
    losses: tuple[float, ...]
    epoch_s: tuple[float, ...]  # of every epoch, those of earlier calls included
    setup_s: float  # this call, before its first step: images to the device, compilation
    checkpoint_s: float  # this call, writing checkpoints: not in epoch_s
    trained_on: str  # device and precision of the last epoch

    @property
    def train_s(self) -> float:
        """Seconds from the first step to the last, without writing checkpoints."""
        return sum(self.epoch_s)

    @property
    def french(self) -> str:
        """What was trained and what it took."""
        told = f"{counted(self.epochs, 'époque')} sur {self.images} images ({self.trained_on}) : "
        told += f"{self.train_s:.0f} s"
        if self.resumed_at == self.epochs:
            return f"{told}, lues dans leur point de reprise"
        told += f" ; cette fois-ci, points de reprise {self.checkpoint_s:.0f} s, préparation avant "
        told += f"le premier pas {self.setup_s:.0f} s"
        if self.resumed_at:
            told += f" ; repris après {counted(self.resumed_at, 'époque')}"
        return told


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
    """Train `model` from scratch, or go on from `checkpoint` where that file exists.

    The same seed gives the same initial weights, order and augmentation on every device, and on a
    CPU (with as many threads) the same final weights to the bit, resumed or not. On a GPU cuDNN
    sums gradients in an order of its own, so final weights differ from run to run.

    Parameters
    ----------
    model : a name that `build_model` knows.
    checkpoint : file written after each epoch, replaced whole; None writes none.
    limit : train on the first so many images only; None takes all.
    progress : wraps each epoch's steps, as `helpers.progress.track` does.

    Raises
    ------
    ValueError
        `epochs` or `limit` is out of range; the checkpoint is another training's or unreadable.
    OSError
        The checkpoint cannot be written; the epoch before is still there.
    RuntimeError
        The loss is no longer finite.
    """
    if epochs < 1:
        raise ValueError(f"epochs={epochs}: train for at least one epoch")
    start, recipe = time.perf_counter(), recipe or Recipe()
    arrays = _first(data, limit)
    network = build_model(model, seed).to(device, memory_format=torch.channels_last).train()
    run = _Run(
        network,
        _optimizer(network, recipe),
        *(torch.from_numpy(array).to(device) for array in arrays),
        recipe,
        recipe.batch_for(len(arrays[1])),
        epochs,
    )
    identity = {"model": model, "seed": seed, "epochs": epochs, "images": len(run.labels)}
    identity |= {"data": data.fingerprint["train"], "recipe": asdict(recipe)}
    done = load_checkpoint(checkpoint, identity, network, run.optimizer)
    first, written, setup = done["epoch"], 0.0, time.perf_counter() - start
    if first < epochs:
        with _training_conditions(), forward_of(network, _example(run)) as (forward, how):
            setup = time.perf_counter() - start
            for epoch in range(first, epochs):
                start = time.perf_counter()
                seed_generators(_epoch_seed(seed, epoch))
                done["losses"].append(_train_epoch(run, forward, epoch, progress))
                done["epoch_s"].append(time.perf_counter() - start)
                done |= {"epoch": epoch + 1, "trained_on": f"{_name(device)}, {how}"}
                written += save_checkpoint(checkpoint, identity | done, network, run.optimizer)
    return TrainingResult(
        network=_as_built(model, seed, network, device),
        model=model,
        seed=seed,
        epochs=epochs,
        images=len(run.labels),
        batch_size=run.batch,
        resumed_at=first,
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


def _first(data: Cifar10, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The first `limit` train images and labels."""
    there = len(data.train_labels)
    limit = there if limit is None else limit
    if not 2 <= limit <= there:
        raise ValueError(f"limit={limit}: train on 2 to {there} images (None takes all)")
    return data.train_images[:limit], data.train_labels[:limit]


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


def _example(run: _Run) -> torch.Tensor:
    """Images as the steps take them; each epoch sets its seed after this drawing."""
    return _augmented(run).batch(0)[0]


def _epoch_seed(seed: int, epoch: int) -> int:
    """Each epoch its own, so that a resumed training draws what an uninterrupted one does."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])


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
    for step in progress(range(steps), steps, f"époque {epoch + 1}/{run.epochs}"):
        rate = run.recipe.rate((epoch + step / steps) / run.epochs, run.batch)
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


def _as_built(model: str, seed: int, trained: nn.Module, device: torch.device) -> nn.Module:
    """The trained weights in a network laid out as `build_model` does it.

    Variants choose their own layout, and fp32's must not depend on the training's: PyTorch picks
    kernels by the weights' strides, and `.to(memory_format=...)` leaves those of 1x1 kernels.
    """
    network = build_model(model, seed).to(device)
    network.load_state_dict(trained.state_dict())
    return network.eval()


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


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
