import pytest
import torch

from helpers.accuracy import accuracy, first_images

CPU = torch.device("cpu")


def batches(sizes):
    start = 0
    for size in sizes:
        labels = torch.arange(start, start + size) % 10
        yield torch.nn.functional.one_hot(labels, 10).float(), labels
        start += size


def test_right_answers_are_counted_over_all_batches():
    assert accuracy(lambda x: x, batches([4, 4, 2]), CPU) == (1.0, 10)
    always_zero = lambda x: torch.eye(10)[torch.zeros(len(x), dtype=int)]  # noqa: E731
    assert accuracy(always_zero, batches([10]), CPU) == (0.1, 10)


@pytest.mark.parametrize("limit", [1, 5, 8, 10, 99])
def test_the_first_images_only(limit):
    taken = list(first_images(batches([4, 4, 2]), limit))
    assert sum(len(labels) for _, labels in taken) == min(limit, 10)
    assert torch.cat([labels for _, labels in taken]).tolist() == list(range(min(limit, 10)))


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="at least one image"):
        accuracy(lambda x: x, [], CPU)
