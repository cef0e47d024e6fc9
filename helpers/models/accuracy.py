"""Accuracy of the very callable that is timed, and how sure it is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from scipy.stats import binomtest

from helpers.clocks.conditions import measuring_conditions
from helpers.environment.progress import track
from helpers.models.trial import users_code

FEW = 8  # images that are scored at both batch sizes


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Right answers of one callable, with a 95 % Wilson interval (fractions in [0, 1])."""

    right: int
    images: int
    fraction: float
    low: float
    high: float
    batch_size: int  # images per call
    logits: torch.Tensor  # (images, classes) float32
    labels: torch.Tensor  # (images,)


def measure_accuracy(
    model: Callable,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    device: torch.device,
    precision: str = "fp32",
    timed_batch: int | None = None,
    tolerance: float = 1e-3,
) -> Accuracy | None:
    """Score (images (N, 3, 32, 32), labels (N,)) batches with the very callable that is timed.

    A callable with `static_batch` gets that many images; one that fails or answers otherwise, by
    over `tolerance` of the largest |logit|, in a batch larger than `timed_batch` gets this many.
    None without batches; ValueError: no logits (N, classes).
    """
    batches, size = list(batches), getattr(model, "static_batch", None)
    if not batches:
        return None
    with measuring_conditions(model, precision):
        if size is None and _batch_matters(model, batches[0][0], device, timed_batch, tolerance):
            size = timed_batch
        found = [
            _scores(model, images, device, size or len(images))
            for images, _ in track(batches, description="accuracy")
        ]
    labels = torch.cat([labels for _, labels in batches])
    return score(torch.cat(found), labels, size or len(batches[0][1]))


def score(found: torch.Tensor, labels: torch.Tensor, batch_size: int) -> Accuracy:
    """Count right answers of logits (N, classes) against labels (N,), with Wilson's interval."""
    # What would pass in silence: NaN has an argmax, other shapes broadcast, unknown labels.
    fit = found.dim() == 2 and labels.shape == found.shape[:1] and found.isfinite().all()
    if not fit or not torch.isin(labels, torch.arange(found.shape[1])).all():
        told = f"scores {tuple(found.shape)} for labels {tuple(labels.shape)} up to {labels.max()}"
        raise ValueError(f"{told}: one score per class, none NaN, one label per image is needed")
    right, images = int((found.argmax(dim=1) == labels).sum()), len(labels)
    low, high = binomtest(right, images).proportion_ci(0.95, method="wilson")
    share = right / images, float(low), float(high)
    return Accuracy(right, images, *share, batch_size, found, labels)


def _batch_matters(model: Callable, images, device, timed: int | None, tolerance: float) -> bool:
    """Does one call with all `images` fail, or answer otherwise than calls with `timed` each?"""
    if timed in (None, len(images)):
        return False
    alone = _scores(model, images[:FEW], device, timed)
    try:
        together = _scores(model, images, device, len(images))[: len(alone)]
    except Exception:
        return True
    return bool((together - alone).abs().max() > tolerance * alone.abs().max())


def _scores(model: Callable, images: torch.Tensor, device, size: int) -> torch.Tensor:
    """Scores (N, classes), float32 on the CPU, of calls with exactly `size` images each."""
    # Outside inference mode, as what is timed: for tensors made inside (a loader's, too),
    # torch.compile would compile another function, and another one would be scored.
    with torch.inference_mode(False):
        images = images.to(device, copy=True)
        filled = torch.cat([images, images[-1:].repeat_interleave(-len(images) % size, 0)])
        pieces = filled.split(size)
    with users_code("the model"):
        # A copy at once: a graph writes its next scores into the same memory.
        found = [model(piece).to("cpu", torch.float32, copy=True) for piece in pieces]
    return torch.cat(found)[: len(images)]
