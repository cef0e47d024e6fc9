import gc
from contextlib import suppress

import pytest
import torch
from fakes import TinyNet

from helpers.clocks.checks import check_repeats
from helpers.clocks.conditions import measuring_conditions, tf32, tf32_in_force

BACKENDS = torch.backends


@pytest.fixture(autouse=True)
def fresh_switches():
    """Each test starts from PyTorch's defaults and leaves them behind."""

    def reset():
        BACKENDS.fp32_precision = "none"
        BACKENDS.cudnn.allow_tf32 = True
        BACKENDS.cuda.matmul.allow_tf32 = False
        for owner in (BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn):
            owner.fp32_precision = "tf32"
        for owner in (BACKENDS.cuda.matmul, BACKENDS.mkldnn.conv, BACKENDS.mkldnn.matmul):
            owner.fp32_precision = "none"

    reset()
    yield
    reset()


SETTINGS = {  # what a caller set, and TF32 then in force: (convolutions, matmul)
    "nothing": ([], (True, False)),
    "older API": (
        [(BACKENDS.cudnn, "allow_tf32", False), (BACKENDS.cuda.matmul, "allow_tf32", True)],
        (False, True),
    ),
    # now the older flag cannot be read
    "newer API": ([(BACKENDS.cudnn.conv, "fp32_precision", "ieee")], (False, False)),
    "newer API, matmul": ([(BACKENDS.cuda.matmul, "fp32_precision", "tf32")], (True, True)),
    "global": ([(BACKENDS, "fp32_precision", "tf32")], (True, True)),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_tf32_is_as_asked_inside_and_every_caller_finds_its_setting_again(case):
    settings, found = SETTINGS[case]
    for owner, name, value in settings:
        setattr(owner, name, value)
    rnn = BACKENDS.cudnn.rnn.fp32_precision
    assert tf32_in_force() == found
    for allowed in (False, True):
        with tf32(allowed):
            assert tf32_in_force() == (allowed, allowed)
        assert tf32_in_force() == found
    assert all(getattr(owner, name) == value for owner, name, value in settings)
    assert BACKENDS.cudnn.rnn.fp32_precision == rnn


@pytest.mark.parametrize("collects", [True, False])
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_all_holds_inside_and_is_restored_whatever_happens(request, error, collects):
    request.addfinalizer(gc.enable)
    (gc.enable if collects else gc.disable)()
    model = TinyNet().train()
    model.norm.eval()  # a frozen batch-norm in a model under training
    with suppress(RuntimeError, KeyboardInterrupt), measuring_conditions(model) as seen:
        assert (seen.modules, seen.modules_in_eval) == (3, 3)
        assert seen.required_for("fp32")
        assert not seen.required_for("tf32")
        assert not torch.is_grad_enabled()
        assert not gc.isenabled()
        if error:
            raise error("in the middle")
    assert model.training
    assert not model.norm.training
    assert gc.isenabled() == collects
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert tf32_in_force() == (True, False)


@pytest.mark.parametrize(
    ("override", "precision", "seen", "met"),
    [
        ("", "default", (True, False), True),
        ("", "tf32", (True, True), True),
        ("1", "fp32", (False, True), False),
        ("0", "fp32", (False, False), True),
    ],
)
def test_nvidias_own_variable_is_obeyed_over_torchs_switches(
    monkeypatch, override, precision, seen, met
):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    with measuring_conditions(lambda x: x, precision) as found:  # it has no modules
        assert (found.tf32_convolutions, found.tf32_matmul) == seen
        assert found.required_for(precision) == met


def test_rounding_is_no_second_answer():
    """What does not repeat: tests/test_bench_latency.py."""
    check_repeats(lambda x: x + 1e-6 * torch.rand(1), torch.rand(1, 3))
