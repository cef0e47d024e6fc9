import math

import pytest
import torch

from helpers.annex.accuracy import compare_accuracy
from helpers.models.accuracy import score

LABELS = torch.arange(100) % 10


def scored(right, labels=LABELS):
    """The score of answers that are right exactly where `right` (100,) says so."""
    answers = torch.where(right, labels, (labels + 1) % 10)
    return score(torch.nn.functional.one_hot(answers, 10).float(), labels, 1)


def first(count):
    return torch.arange(100) < count


def test_a_change_counts_what_only_one_of_them_gets_right():
    right = first(80) | (torch.arange(100) == 99)  # ten lost, one gained
    change = compare_accuracy(scored(first(90)), scored(right))
    assert (change.images, change.lost, change.gained) == (100, 10, 1)
    assert change.difference == pytest.approx(-0.09)
    exact = 2 * sum(math.comb(11, k) for k in (0, 1)) / 2**11
    assert change.p_value == pytest.approx(exact)
    assert change.largest_drift == 1
    same = compare_accuracy(scored(right), scored(right))
    assert (same.p_value, same.difference, same.largest_drift) == (1, 0, 0)


def test_other_images_cannot_be_compared():
    with pytest.raises(ValueError, match="same batches"):
        compare_accuracy(scored(first(90)), scored(first(90), LABELS.flip(0)))
