"""What would spoil a measurement in silence is refused; what the model raises says where."""

import pytest
import torch
import torch.nn.functional as F
from fakes import TinyNet

from helpers.clocks import host_latencies
from helpers.clocks.checks import (
    check_count,
    check_output,
    check_repeats,
    check_unchanged,
    move_inputs,
    phase,
)

CPU, IMAGE = torch.device("cpu"), torch.rand(1, 3, 8, 8)


@pytest.mark.parametrize(
    "batches",
    [
        [],
        [IMAGE, torch.zeros(2, 3, 8, 8)],
        [IMAGE, IMAGE.double()],
        [torch.zeros(0, 3, 8, 8)],
    ],
    ids=["none", "sizes", "types", "empty"],
)
def test_batches_that_are_not_the_same_work_are_refused(batches):
    with pytest.raises(ValueError, match="one shape and type"):
        move_inputs(batches, CPU)


def test_labels_are_left_out_and_an_endless_loader_is_read_as_far_as_needed():
    endless = iter(lambda: (IMAGE, torch.zeros(1)), None)
    assert len(move_inputs(endless, CPU)) == 8


def test_what_cannot_be_timed_or_counted_is_refused():
    with pytest.raises(ValueError, match="'cpu' or 'cuda'"):
        move_inputs([IMAGE], torch.device("mps"))
    for value in (0, -5, 2.5):
        with pytest.raises(ValueError, match=f"measure_iters={value}"):
            check_count("measure_iters", value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: (x, x), "tuple"),
        (lambda x: None, "NoneType"),
        (lambda x: x * float("nan"), "NaN"),
        (lambda x: x[:0], "empty"),
        (lambda x: x.to("meta"), "meta"),
    ],
)
def test_outputs_that_cannot_be_timed_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        check_output(model, IMAGE, CPU)


def test_a_model_that_does_not_repeat_is_refused():
    with pytest.raises(ValueError, match="two answers"):
        check_repeats(lambda x: F.dropout(x, 0.5), IMAGE)
    check_repeats(lambda x: x + 1e-6 * torch.rand(1), IMAGE)  # rounding
    check_repeats(TinyNet().eval(), IMAGE)


def test_a_changed_input_is_refused():
    inputs = [IMAGE.clone()]
    check_unchanged(inputs, [IMAGE])
    inputs[0].add_(1)
    with pytest.raises(ValueError, match="in place"):
        check_unchanged(inputs, [IMAGE])


def test_a_models_own_error_comes_as_it_is_with_its_phase_and_iteration():
    calls = []

    def model(x):
        calls.append(x)
        if len(calls) == 12:
            raise LookupError("inner trouble")

    with pytest.raises(LookupError, match="inner trouble") as caught, phase("warm-up", 100):
        host_latencies(model, [IMAGE], 25, CPU)
    assert caught.value.__notes__ == ["in iteration 112 of the warm-up"]


def test_a_model_that_ends_python_does_not_end_the_notebook_as_if_all_were_well():
    def model(x):
        raise SystemExit(0)

    with pytest.raises(RuntimeError, match="SystemExit"):
        check_output(model, IMAGE, CPU)
