"""The rest of what is refused, by models, inputs and counts: tests/robustness/test_bad_input.py."""

import pytest
import torch
import torch.nn.functional as F
from fakes import TinyNet

from helpers.clocks.checks import check_repeats, move_inputs, phase
from helpers.clocks.timing import host_latencies

CPU, IMAGE = torch.device("cpu"), torch.rand(1, 3, 8, 8)


def test_labels_are_left_out():
    (moved,) = move_inputs([(IMAGE, torch.zeros(1))], CPU)
    assert torch.equal(moved, IMAGE)


@torch.inference_mode()
def test_a_model_that_does_not_repeat_is_refused_and_rounding_is_not():
    with pytest.raises(ValueError, match="two answers"):
        check_repeats(lambda x: F.dropout(x, 0.5), IMAGE)
    check_repeats(lambda x: x + 1e-6 * torch.rand(1), IMAGE)
    check_repeats(TinyNet().eval(), IMAGE)


def test_a_models_own_error_comes_as_it_is_with_its_phase_and_iteration():
    calls = []

    def model(x):
        calls.append(x)
        if len(calls) == 12:
            raise LookupError("inner trouble")

    with pytest.raises(LookupError, match="inner trouble") as caught, phase("warm-up", 100):
        host_latencies(model, [IMAGE], 25, CPU)
    assert caught.value.__notes__ == ["in iteration 112 of the warm-up"]
