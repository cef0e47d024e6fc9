"""What a variant changes in the answers, image by image."""

from dataclasses import dataclass

import torch
from scipy.stats import binomtest

from helpers.models.accuracy import Accuracy


@dataclass(frozen=True)
class AccuracyChange:
    """A variant's answers against the reference's on the same images."""

    lost: int  # images that only the reference gets right
    gained: int  # images that only the variant gets right
    p_value: float  # two-sided exact McNemar test; of this one pair, not corrected for several


def compare_accuracy(reference: Accuracy, variant: Accuracy) -> AccuracyChange:
    """Compare two callables' answers by McNemar's exact test (1947); same images or ValueError.

    If neither is better, each image that only one gets right is either's with probability 1/2.
    """
    if not torch.equal(reference.labels, variant.labels):
        raise ValueError("accuracies of other images cannot be compared: use the same batches")
    was_right, is_right = (a.logits.argmax(dim=1) == a.labels for a in (reference, variant))
    lost, gained = int((was_right & ~is_right).sum()), int((is_right & ~was_right).sum())
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return AccuracyChange(lost, gained, p_value)
