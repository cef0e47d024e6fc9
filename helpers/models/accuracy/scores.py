"""The scores that the very callable that is timed gives to the images of a data set."""

from collections.abc import Callable, Iterable
from itertools import islice

import torch

from helpers.clocks.conditions import measuring_conditions


def logits(
    model: Callable,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    device: torch.device,
    precision: str = "fp32",
) -> torch.Tensor:
    """Return the scores (N, classes) of all images, float32 on the CPU, in their order.

    A callable that only takes one batch size (a captured graph, say) names it in its attribute
    `static_batch`: it is called with exactly that many images, the last of a batch repeated where
    some are missing, and the repeated ones' scores dropped.

    Parameters
    ----------
    batches
        (images (N, 3, 32, 32), labels (N,)) pairs; the labels only prove that the scores fit.

    Raises
    ------
    ValueError
        There is no image, a label for each is missing, or the model's output gives no class.
    """
    found = []
    with measuring_conditions(model, precision):
        for index, (images, labels) in enumerate(batches):
            scores = _scores(model, images, device)
            _check(scores, labels, f"batch {index}")
            # A copy at once: a graph writes its next scores into the same memory.
            found.append(scores.to("cpu", torch.float32, copy=True))
    if not found:
        raise ValueError("logits need at least one image: the data loader yields none")
    return torch.cat(found)


def static_batch(model: Callable) -> int | None:
    """The only batch size that `model` takes, or None if it takes any.

    Raises
    ------
    ValueError
        Its attribute `static_batch` is no batch size.
    """
    size = getattr(model, "static_batch", None)
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ValueError(
            f"the callable's static_batch={size!r} is no batch size: give a whole number from 1, "
            "or None if it takes any"
        )
    return size


def _scores(model: Callable, images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Call `model` on all images, in pieces of its static batch if it has one.

    What it is given is made outside inference mode, as what is timed: for tensors made inside,
    torch.compile would compile another function, and another one would be scored.
    """
    size = static_batch(model)
    with torch.inference_mode(False):
        images = images.to(device, copy=True)  # a loader may have made them inside
        pieces = [_filled(piece, size) for piece in images.split(size)] if size else [images]
    found = []
    for piece in pieces:
        scores = model(piece)
        if size is None or not isinstance(scores, torch.Tensor):
            return scores  # _check says what is wrong with it
        found.append(scores.clone())  # see logits
    return torch.cat(found)[: len(images)]


def _filled(piece: torch.Tensor, size: int) -> torch.Tensor:
    """The piece with its last image repeated until there are `size`."""
    missing = size - len(piece)
    return torch.cat([piece, piece[-1:].expand(missing, *piece.shape[1:])]) if missing else piece


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
