"""Accuracy of the very callable that is timed."""

from collections.abc import Callable, Iterable
from itertools import islice

import torch

from helpers.conditions import measuring_conditions


def accuracy(
    model: Callable,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    device: torch.device,
    precision: str = "fp32",
) -> tuple[float, int]:
    """Return (fraction of right answers, number of images), under the measuring conditions.

    Parameters
    ----------
    batches
        (images (N, 3, 32, 32), labels (N,)) pairs.

    Raises
    ------
    ValueError
        There is no image, a label for each is missing, or the model's output gives no class.
    """
    right = seen = 0
    with measuring_conditions(model, precision):
        for index, (images, labels) in enumerate(batches):
            scores = model(images.to(device))
            _check(scores, labels, f"batch {index}")
            right += int((scores.argmax(dim=1) == labels.to(device)).sum())
            seen += len(labels)
    if not seen:
        raise ValueError("accuracy needs at least one image: the data loader yields none")
    return right / seen, seen


def _check(scores, labels: torch.Tensor, where: str) -> None:
    """Refuse what would be counted all the same: NaN has an argmax, other shapes broadcast."""
    if not isinstance(scores, torch.Tensor) or scores.dim() != 2:
        shape = tuple(getattr(scores, "shape", ())) or type(scores).__name__
        raise ValueError(
            f"{where}: the model returned {shape}, not scores (N, classes): wrap it in a function "
            "that returns them"
        )
    if labels.shape != scores.shape[:1]:
        raise ValueError(
            f"{where}: labels of shape {tuple(labels.shape)} for scores {tuple(scores.shape)}: "
            "give one label for each image, of shape (N,)"
        )
    if not torch.isfinite(scores).all():
        raise ValueError(
            f"{where}: the model's scores hold NaN or infinity, so they name no class: check its "
            "weights and the images' normalisation"
        )
    if labels.numel() and (labels.min() < 0 or labels.max() >= scores.shape[1]):
        raise ValueError(
            f"{where}: labels from {labels.min()} to {labels.max()}, but the model tells "
            f"{scores.shape[1]} classes apart: use a model made for this data set"
        )


def first_images(batches: Iterable, limit: int) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Cut (images, labels) batches off after `limit` images."""
    left = limit
    for images, labels in islice(batches, limit):
        if left <= 0:
            return
        yield images[:left], labels[:left]
        left -= len(labels)
