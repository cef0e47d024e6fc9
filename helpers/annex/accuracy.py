"""What a variant changes in the answers, image by image."""

from scipy.stats import binomtest

from helpers.models.accuracy import Accuracy


def compare_accuracy(reference: Accuracy, variant: Accuracy) -> tuple[int, int, float]:
    """Compare two callables' answers by McNemar's exact test (1947), on the same images.

    Returns how many only the reference gets right, how many only the variant, and the two-sided p
    of this pair alone: if neither is better, each of these images is either's with probability 1/2.
    """
    was_right, is_right = (a.logits.argmax(dim=1) == a.labels for a in (reference, variant))
    lost, gained = int((was_right & ~is_right).sum()), int((is_right & ~was_right).sum())
    p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return lost, gained, p_value
