import pytest
import torch
from fakes import TinyNet, leave

from helpers.annex.variants.graph import Compiled
from helpers.annex.variants.guard import no_recompilation
from helpers.models import measure_accuracy
from helpers.models.accuracy import score

CPU = torch.device("cpu")
LABELS = torch.arange(100) % 10
ANSWERS = torch.nn.functional.one_hot(torch.where(LABELS < 9, LABELS, 0), 10).float()  # 90 right
BATCHES = list(zip(ANSWERS.split(40), LABELS.split(40), strict=True))


@pytest.mark.parametrize(
    ("right", "low", "high"),  # Wilson's interval by hand: (p + z²/2n ± z·√…) / (1 + z²/n)
    [(95, 0.88825, 0.97846), (50, 0.40383, 0.59617), (100, 0.96301, 1.0), (0, 0.0, 0.03699)],
)
def test_the_interval_is_wilsons(right, low, high):
    answers = torch.where(torch.arange(100) < right, LABELS, (LABELS + 1) % 10)
    found = score(torch.nn.functional.one_hot(answers, 10).float(), LABELS, 1)
    assert (found.right, found.images, found.fraction) == (right, 100, right / 100)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)


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


@pytest.mark.parametrize("size", [1, 40, 64])
def test_a_graph_gets_its_own_batch_size_and_its_padding_is_not_counted(size):
    graph = Graph(size)
    found = measure_accuracy(graph, iter(BATCHES), CPU)
    assert (found.right, found.images, found.batch_size) == (90, 100, size)
    assert torch.equal(found.logits, 2 * ANSWERS)
    assert torch.equal(found.labels, LABELS)
    assert graph.calls == sum(-(-n // size) for n in [40, 40, 20])


def test_logits_are_float32_taken_under_the_measuring_conditions_which_are_undone():
    model = TinyNet().train()
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = measure_accuracy(model, [(images[:4], LABELS[:4]), (images[4:], LABELS[4:6])], CPU)
    assert model.training
    assert torch.allclose(found.logits, model.eval()(images), atol=1e-6)
    assert measure_accuracy(lambda x: x.half(), BATCHES, CPU).logits.dtype == torch.float32


def test_scoring_calls_the_code_that_was_compiled_and_no_other():
    call = Compiled(torch.nn.Identity(), torch.zeros(40, 10), backend="eager")
    call.static_batch = 40
    with torch.inference_mode():
        call(ANSWERS[:40])  # an ordinary tensor, as move_inputs makes them
    with no_recompilation() as seen:
        measure_accuracy(call, BATCHES, CPU)
    assert not seen


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
    ("model", "timed", "scored"),
    [
        (BatchStatistics(), 1, 1),  # case 2
        (BatchStatistics(), 3, 3),
        (one_only, 1, 1),  # case 9
        (torch.nn.Identity(), 1, 40),
    ],
)
def test_cases_2_and_9_scored_as_timed_where_the_batch_matters(model, timed, scored):
    found = measure_accuracy(model, BATCHES, CPU, timed_batch=timed)
    assert (found.batch_size, found.images) == (scored, 100)
    if isinstance(model, BatchStatistics) and timed == 1:
        assert (found.logits == 0).all()  # what the timed forward answers, not 90 % right
    if model is one_only:
        assert found.right == 90


def test_what_rounding_explains_does_not_matter():
    given = (lambda x: x + (len(x) > 1) / 100), BATCHES, CPU, "fp32", 1
    assert measure_accuracy(*given).batch_size == 1
    assert measure_accuracy(*given, 3e-2).batch_size == 40


NONSENSE = {
    "case 5: exit": (leave, LABELS[:4]),
    "tuple": (lambda x: (x,), LABELS[:4]),
    "NaN": (lambda x: x * float("nan"), LABELS[:4]),
    "labels that broadcast": (lambda x: x, LABELS[:4, None]),
    "too few labels": (lambda x: x, LABELS[:3]),
    "negative labels": (lambda x: x, LABELS[:4] - 1),
}


@pytest.mark.parametrize(("model", "labels"), NONSENSE.values(), ids=NONSENSE)
def test_accuracy_is_never_counted_from_nonsense(model, labels):
    with pytest.raises((ValueError, AttributeError)):
        measure_accuracy(model, [(ANSWERS[:4], labels)], CPU)
