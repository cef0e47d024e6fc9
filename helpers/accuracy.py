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
    progress: Callable[[Iterable], Iterable] = iter,
) -> tuple[float, int]:
    """Return (fraction of right answers, number of images), under the measuring conditions.

    Parameters
    ----------
    batches
        (images (N, 3, 32, 32), labels (N,)) pairs.
    progress
        Wraps the iteration over batches, to show how far it is.

    Raises
    ------
    ValueError
        There is no image.
    """
    right = seen = 0
    with measuring_conditions(model, precision):
        for images, labels in progress(batches):
            predicted = model(images.to(device)).argmax(dim=1)
            right += int((predicted == labels.to(device)).sum())
            seen += len(labels)
    if not seen:
        raise ValueError("accuracy needs at least one image: the data loader yields none")
    return right / seen, seen


def first_images(batches: Iterable, limit: int) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Cut (images, labels) batches off after `limit` images."""
    left = limit
    for images, labels in islice(batches, limit):
        if left <= 0:
            return
        yield images[:left], labels[:left]
        left -= len(labels)
