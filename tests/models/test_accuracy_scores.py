import pytest
import torch

from helpers.annex.variants.graph import Compiled
from helpers.annex.variants.guard import no_recompilation
from helpers.models.accuracy import first_images, measure_accuracy
from tests.fakes import TinyNet

CPU = torch.device("cpu")


def logits(model, batches, device):
    return measure_accuracy(model, batches, device).logits


def batches(sizes):
    start = 0
    for size in sizes:
        labels = torch.arange(start, start + size) % 10
        yield torch.nn.functional.one_hot(labels, 10).float(), labels
        start += size


@pytest.mark.parametrize("limit", [1, 5, 8, 10, 99])
def test_the_first_images_only(limit):
    taken = list(first_images(batches([4, 4, 2]), limit))
    assert sum(len(labels) for _, labels in taken) == min(limit, 10)
    assert torch.cat([labels for _, labels in taken]).tolist() == list(range(min(limit, 10)))


class Graph:
    """A captured graph's manners: one batch size, one input and one output buffer, reused."""

    def __init__(self, size):
        self.static_batch = size
        self.output = torch.zeros(size, 10)
        self.calls = 0

    def __call__(self, x):
        assert x.shape == self.output.shape, "a graph replays one shape only"
        self.calls += 1
        return self.output.copy_(2 * x)


def images_of(sizes):
    return torch.cat([images for images, _ in batches(sizes)])


def test_logits_are_all_scores_in_order_as_float32_on_the_cpu():
    halves = logits(lambda x: 2 * x.half(), batches([4, 4, 2]), CPU)
    assert halves.dtype == torch.float32
    assert torch.equal(halves, 2 * images_of([4, 4, 2]))


@pytest.mark.parametrize("size", [1, 3, 4, 16])
def test_a_graph_gets_its_own_batch_size_and_its_padding_is_not_counted(size):
    graph = Graph(size)
    assert torch.equal(logits(graph, batches([4, 4, 2]), CPU), 2 * images_of([4, 4, 2]))
    assert graph.calls == sum(-(-n // size) for n in [4, 4, 2])


@pytest.mark.parametrize("sizes", [[4, 4], [4, 2]])
def test_scoring_calls_the_code_that_was_compiled_and_no_other(sizes):
    call = Compiled(torch.nn.Identity(), torch.zeros(4, 10), backend="eager")
    call.static_batch = 4
    timed = images_of([4])  # an ordinary tensor, as move_inputs makes them
    with torch.inference_mode():
        call(timed)
    with no_recompilation() as seen:
        logits(call, batches(sizes), CPU)
    assert seen.problem == ""


def test_an_output_buffer_used_again_is_copied_in_time():
    reused = torch.zeros(4, 10)
    found = logits(lambda x: reused.copy_(x), batches([4, 4]), CPU)
    assert torch.equal(found, images_of([4, 4]))


def test_logits_are_taken_under_the_measuring_conditions_which_are_undone():
    model = TinyNet().train()
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = logits(
        model,
        [(images[:4], torch.zeros(4, dtype=int)), (images[4:], torch.zeros(2, dtype=int))],
        CPU,
    )
    assert model.training
    assert not found.requires_grad
    assert torch.allclose(found, model.eval()(images), atol=1e-6)


def test_logits_refuse_what_names_no_class():
    with pytest.raises(ValueError, match="at least one image"):
        logits(lambda x: x, [], CPU)
    with pytest.raises(ValueError, match="NaN"):
        logits(lambda x: x / (len(x) - 2), batches([4, 2]), CPU)
    model = lambda x: (x,)  # noqa: E731
    with pytest.raises(ValueError, match="returned tuple"):
        logits(model, batches([4]), CPU)
    model.static_batch = 2
    with pytest.raises(ValueError, match="returned tuple"):
        logits(model, batches([4]), CPU)
