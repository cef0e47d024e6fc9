"""What a variant changes in the answers, image by image."""

from typing import NamedTuple

from scipy.stats import binomtest

from helpers.models.accuracy import Accuracy


class AccuracyChange(NamedTuple):
    """A variant's answers against the reference's on the same images."""

    lost: int  # images that only the reference gets right
    gained: int  # images that only the variant gets right
    p_value: float  # two-sided exact McNemar test; of this one pair, not corrected for several


def compare_accuracy(reference: Accuracy, variant: Accuracy) -> AccuracyChange:
    """Compare two callables' answers by McNemar's exact test (1947), on the same images.

    If neither is better, each image that only one gets right is either's with probability 1/2.
    """
    was_right, is_right = (a.logits.argmax(dim=1) == a.labels for a in (reference, variant))
    lost, gained = int((was_right & ~is_right).sum()), int((is_right & ~was_right).sum())
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return AccuracyChange(lost, gained, p_value)
