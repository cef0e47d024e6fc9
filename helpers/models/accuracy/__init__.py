"""Accuracy of the very callable that is timed: how sure it is, and what a variant changes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from scipy.stats import binomtest

from helpers.models.accuracy.scores import logits, static_batch
from helpers.progress import track

CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Right answers of one callable, with a 95 % Wilson interval (fractions in [0, 1])."""

    right: int
    images: int
    fraction: float
    low: float
    high: float
    batch_size: int  # images per call: the callable's static batch, else the batches' own
    logits: torch.Tensor  # (images, classes) float32
    labels: torch.Tensor  # (images,)


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
) -> Accuracy:
    """Score all images with the very callable that is timed.

    Parameters
    ----------
    batches
        (images (N, 3, 32, 32), labels (N,)) pairs, all but the last of one size.

    Raises
    ------
    ValueError
        See `helpers.models.accuracy.scores.logits`.
    """
    batches = list(batches)
    shown = progress(batches, len(batches), "exactitude")
    found = logits(model, shown, device, precision)
    labels = torch.cat([labels for _, labels in batches])
    return score(found, labels, static_batch(model) or len(batches[0][1]))


def score(found: torch.Tensor, labels: torch.Tensor, batch_size: int) -> Accuracy:
    """Count right answers; the interval is Wilson's (1927), which holds near 0 and 1 too."""
    right, images = int((found.argmax(dim=1) == labels).sum()), len(labels)
    low, high = binomtest(right, images).proportion_ci(CONFIDENCE, method="wilson")
    return Accuracy(
        right, images, right / images, float(low), float(high), batch_size, found, labels
    )


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
    if not torch.equal(reference.labels, variant.labels):
        raise ValueError(
            f"the accuracies of {reference.images} and {variant.images} images cannot be paired: "
            "their labels differ; measure both on the same batches"
        )
    if reference.logits.shape != variant.logits.shape:
        raise ValueError(
            f"logits {tuple(variant.logits.shape)} cannot be paired with the reference's "
            f"{tuple(reference.logits.shape)}: both must tell the same classes apart"
        )
    answers = [one.logits.argmax(dim=1) for one in (reference, variant)]
    was_right, is_right = (answer == reference.labels for answer in answers)
    lost, gained = int((was_right & ~is_right).sum()), int((is_right & ~was_right).sum())
    return AccuracyChange(
        images=reference.images,
        difference=(gained - lost) / reference.images,
        lost=lost,
        gained=gained,
        p_value=float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        largest_drift=float((variant.logits - reference.logits).abs().max()),
    )
