import math

import pytest
import torch

from helpers.models.accuracy import compare_accuracy, measure_accuracy, score

CPU = torch.device("cpu")
LABELS = torch.arange(100) % 10


def answers(right, seed=0):
    """Logits (100, 10) whose answer is right exactly where `right` (100,) says so."""
    answer = torch.where(right, LABELS, (LABELS + 1) % 10)
    noise = torch.rand(100, 10, generator=torch.Generator().manual_seed(seed)) / 10
    return torch.nn.functional.one_hot(answer, 10).float() + noise


def first(count):
    return torch.arange(100) < count


@pytest.mark.parametrize(
    ("right", "low", "high"),  # Wilson's interval by hand: (p + z²/2n ± z·√…) / (1 + z²/n)
    [(95, 0.88825, 0.97846), (50, 0.40383, 0.59617), (100, 0.96301, 1.0), (0, 0.0, 0.03699)],
)
def test_the_interval_is_wilsons(right, low, high):
    found = score(answers(first(right)), LABELS, 1)
    assert (found.right, found.images, found.fraction) == (right, 100, right / 100)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)


def test_the_interval_covers_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        found = score(answers(torch.rand(100, generator=generator) < 0.9), LABELS, 1)
        covered += found.low <= 0.9 <= found.high
    assert 0.92 < covered / 400 < 0.98


def test_the_batch_size_says_how_the_callable_was_called():
    batches = list(zip(answers(first(90)).split(40), LABELS.split(40), strict=True))
    any_size = measure_accuracy(lambda x: x, iter(batches), CPU)
    assert (any_size.right, any_size.images, any_size.batch_size) == (90, 100, 40)
    one = lambda x: x  # noqa: E731
    one.static_batch = 1
    found = measure_accuracy(one, batches, CPU)
    assert found.batch_size == 1
    assert torch.equal(found.logits, any_size.logits)
    assert torch.equal(found.labels, LABELS)


def test_right_answers_are_counted_over_all_batches():
    found = measure_accuracy(lambda x: x, [(answers(first(90)), LABELS)] * 2, CPU)
    assert (found.right, found.images, found.fraction) == (180, 200, 0.9)
    with pytest.raises(ValueError, match="at least one image"):
        measure_accuracy(lambda x: x, [], CPU)


def test_a_change_counts_what_only_one_of_them_gets_right():
    reference = score(answers(first(90)), LABELS, 500)
    right = first(80) | (torch.arange(100) == 99)  # ten lost, one gained
    variant = score(answers(right), LABELS, 1)
    change = compare_accuracy(reference, variant)
    assert (change.images, change.lost, change.gained) == (100, 10, 1)
    assert change.difference == pytest.approx(-0.09)
    exact = 2 * sum(math.comb(11, k) for k in (0, 1)) / 2**11
    assert change.p_value == pytest.approx(exact)
    assert change.largest_drift == pytest.approx(1.0)


def test_no_change_is_no_evidence():
    reference = score(answers(first(90)), LABELS, 1)
    change = compare_accuracy(reference, reference)
    assert (change.p_value, change.difference) == (1.0, 0.0)
    assert change.largest_drift == 0


def test_a_drift_shows_before_any_answer_changes():
    logits = answers(first(90))
    moved = logits.clone()
    moved[7, 3] -= 0.25
    change = compare_accuracy(score(logits, LABELS, 1), score(moved, LABELS, 1))
    assert (change.lost, change.gained) == (0, 0)
    assert change.largest_drift == pytest.approx(0.25)


def test_chance_alone_is_rarely_called_a_change():
    """Exact, so conservative: at most 5 % false alarms at 0.05."""
    generator = torch.Generator().manual_seed(0)
    alarms = 0
    for _ in range(300):
        pair = [
            score(answers(torch.rand(100, generator=generator) < 0.9), LABELS, 1) for _ in range(2)
        ]
        alarms += compare_accuracy(*pair).p_value < 0.05
    assert alarms / 300 <= 0.05


def test_other_images_cannot_be_paired():
    reference = score(answers(first(90)), LABELS, 1)
    with pytest.raises(ValueError, match="cannot be paired"):
        compare_accuracy(reference, score(answers(first(90))[:50], LABELS[:50], 1))
    with pytest.raises(ValueError, match="same batches"):
        compare_accuracy(reference, score(answers(first(90)).flip(0), LABELS.flip(0), 1))
    wide = torch.cat([answers(first(90)), torch.zeros(100, 1)], dim=1)
    with pytest.raises(ValueError, match=r"\(100, 11\) .*same classes"):
        compare_accuracy(reference, score(wide, LABELS, 1))


class BatchStatistics(torch.nn.Module):
    """Case 2: the answer to an image depends on its companions."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(10, track_running_stats=False)

    def forward(self, x):
        return self.norm(x) if len(x) > 1 else torch.zeros_like(x)


def one_only(x):
    assert len(x) == 1, "exported for one image"
    return x


@pytest.mark.parametrize(
    ("model", "size", "said"),
    [
        (BatchStatistics(), 1, "logits differ"),  # case 2
        (BatchStatistics(), 3, "logits differ"),
        (one_only, 1, "exported for one image"),  # case 9
        (torch.nn.Identity(), 40, ""),
    ],
)
def test_cases_2_and_9_scored_as_timed_where_the_batch_matters(model, size, said):
    batches = list(zip(answers(first(90)).split(40), LABELS.split(40), strict=True))
    timed = size if said else 1
    found = measure_accuracy(model, batches, CPU, timed_batch=timed)
    assert (found.batch_size, found.images) == (size, 100)
    assert said in found.note
    assert bool(said) == bool(found.note)
    if isinstance(model, BatchStatistics) and size == 1:
        assert (found.logits == 0).all()  # what the timed forward answers, not 90 % right
    if model is one_only:
        assert found.right == 90


def test_case_5_a_forward_that_leaves_is_an_error():
    def leave(x):
        raise SystemExit(0)

    with pytest.raises(ValueError, match="raised SystemExit"):
        measure_accuracy(leave, [(answers(first(90)), LABELS)], CPU, timed_batch=1)
