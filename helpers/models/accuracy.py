"""Accuracy of the very callable that is timed: how sure it is, and what a variant changes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from scipy.stats import binomtest

from helpers.clocks.conditions import measuring_conditions
from helpers.models.trial import ModelNameError, users_code
from helpers.progress import track

CONFIDENCE = 0.95
FEW = 8  # images that are scored at both batch sizes
ROUNDING = {"fp32": 1e-3}  # of the largest |logit|; other precisions round more
ROUGHER = 3e-2


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
    note: str = ""  # why the images were scored at the timed batch size, "" if they need not be


@dataclass(frozen=True)
class AccuracyChange:
    """A variant's answers against the reference's on the same images."""

    images: int
    difference: float  # the variant's fraction of right answers minus the reference's
    lost: int  # images that only the reference gets right
    gained: int  # images that only the variant gets right
    p_value: float  # two-sided exact McNemar test; of this one pair, not corrected for several
    largest_drift: float  # the largest |logit - reference's logit|


def measure_accuracy(
    model: Callable,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    device: torch.device,
    precision: str = "fp32",
    progress: Callable = track,
    timed_batch: int | None = None,
) -> Accuracy:
    """Score all images with the very callable that is timed, a copy of the last filling up.

    Parameters
    ----------
    batches
        (images (N, 3, 32, 32), labels (N,)) pairs, all but the last of one size.
    timed_batch
        Images per timed forward. Where the callable takes no larger batch, or answers otherwise
        in one, all images are scored in batches of this size. A callable that takes one size only
        (a captured graph) names it in its attribute `static_batch`, and always gets it.

    Raises
    ------
    ValueError
        There is no image, labels do not fit, or scores are not finite logits (N, classes).
    """
    batches = list(batches)
    if not batches:
        raise ValueError("an accuracy needs at least one image: the data loader yields none")
    size, note = getattr(model, "static_batch", None), ""
    with measuring_conditions(model, precision):
        if size is None and timed_batch is not None:
            tolerance = ROUNDING.get(precision, ROUGHER)
            note = _difference(model, batches[0][0], device, timed_batch, tolerance)
            size = timed_batch if note else None
        found = []
        for images, labels in progress(batches, len(batches), "accuracy"):
            scores = _scores(model, images, device, size or len(images))
            _check(scores, labels)
            found.append(scores)
    labels = torch.cat([labels for _, labels in batches])
    return score(torch.cat(found), labels, size or len(batches[0][1]), note)


def score(found: torch.Tensor, labels: torch.Tensor, batch_size: int, note: str = "") -> Accuracy:
    """Count right answers; the interval is Wilson's (1927), which holds near 0 and 1 too."""
    right, images = int((found.argmax(dim=1) == labels).sum()), len(labels)
    low, high = binomtest(right, images).proportion_ci(CONFIDENCE, method="wilson")
    shown = (right, images, right / images, float(low), float(high))
    return Accuracy(*shown, batch_size, found, labels, note)


def compare_accuracy(reference: Accuracy, variant: Accuracy) -> AccuracyChange:
    """Compare two callables' answers image by image.

    McNemar's test (1947), exact: if neither is better, each image that only one of them gets right
    is the one's or the other's with probability 1/2. Far finer than comparing two intervals, since
    both saw the same images.

    Raises
    ------
    ValueError
        They did not see the same images, or tell other classes apart.
    """
    shapes = tuple(reference.logits.shape), tuple(variant.logits.shape)
    if shapes[0] != shapes[1] or not torch.equal(reference.labels, variant.labels):
        raise ValueError(
            f"logits {shapes[1]} cannot be paired with the reference's {shapes[0]}: measure both "
            "on the same batches, with the same classes"
        )
    was_right, is_right = (a.logits.argmax(dim=1) == a.labels for a in (reference, variant))
    lost, gained = int((was_right & ~is_right).sum()), int((is_right & ~was_right).sum())
    return AccuracyChange(
        images=reference.images,
        difference=(gained - lost) / reference.images,
        lost=lost,
        gained=gained,
        p_value=float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        largest_drift=float((variant.logits - reference.logits).abs().max()),
    )


def first_images(batches: Iterable, limit: int) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Cut (images, labels) batches off after `limit` images."""
    for images, labels in batches:
        yield images[:limit], labels[:limit]
        limit -= len(labels)
        if limit <= 0:
            return


def _difference(model: Callable, images, device, timed: int, tolerance: float) -> str:
    """Why `images` cannot be scored in one call instead of in batches of `timed`, or ""."""
    if timed == len(images):
        return ""
    few = images[:FEW]
    alone = _scores(model, few, device, timed)
    try:
        together = _scores(model, images, device, len(images))[: len(few)]
    except ModelNameError as error:
        return f"(in one of {len(images)} {error})"
    drift, largest = float((together - alone).abs().max()), float(alone.abs().max())
    if drift <= tolerance * largest:
        return ""
    return f"(in one of {len(images)} logits differ by up to {drift:.3g}, largest {largest:.3g})"


def _scores(model: Callable, images: torch.Tensor, device, size: int) -> torch.Tensor:
    """Scores (N, classes), float32 on the CPU, of calls with exactly `size` images each.

    Inputs are made outside inference mode, as what is timed: for tensors made inside,
    torch.compile would compile another function, and another one would be scored.
    """
    with torch.inference_mode(False):
        images = images.to(device, copy=True)  # a loader may have made them inside
        missing = -len(images) % size
        filled = torch.cat([images, images[-1:].expand(missing, *images.shape[1:])])
        pieces = filled.split(size)
    found = []
    for piece in pieces:
        with users_code("the model"):
            scores = model(piece)
        if not isinstance(scores, torch.Tensor) or scores.dim() != 2:
            shape = tuple(getattr(scores, "shape", ())) or type(scores).__name__
            raise ValueError(
                f"the model returned {shape}, not logits (N, classes): measure a Module whose "
                "forward returns the logits"
            )
        # A copy at once: a graph writes its next scores into the same memory.
        found.append(scores.to("cpu", torch.float32, copy=True))
    return torch.cat(found)[: len(images)]


def _check(scores: torch.Tensor, labels: torch.Tensor) -> None:
    """Refuse what would be counted all the same: NaN has an argmax, other shapes broadcast."""
    if labels.shape != scores.shape[:1]:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} for scores {tuple(scores.shape)}: give one "
            "label for each image, of shape (N,)"
        )
    if not torch.isfinite(scores).all():
        raise ValueError(
            "the model's scores hold NaN or infinity, so they name no class: check its weights and "
            "the images' normalisation"
        )
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < scores.shape[1]:
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()}, but the model tells "
            f"{scores.shape[1]} classes apart: use a model made for this data set"
        )
