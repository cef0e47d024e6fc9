import gc

import pytest
import torch
from fakes import TinyNet

from helpers.clocks.conditions import measuring_conditions, tf32, tf32_in_force


@pytest.fixture(autouse=True)
def fresh_switches():
    """Each test starts from PyTorch's defaults and leaves them behind."""
    backends = torch.backends

    def reset():
        backends.fp32_precision = "none"
        backends.cudnn.allow_tf32 = True
        backends.cuda.matmul.allow_tf32 = False
        for owner in (backends.cudnn.conv, backends.cudnn.rnn):
            owner.fp32_precision = "tf32"
        for owner in (backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul):
            owner.fp32_precision = "none"

    reset()
    yield
    reset()


def legacy_readable():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_the_default_hides_tf32_behind_fp32_convolutions():
    assert tf32_in_force() == (True, False)


def test_strict_fp32_inside_and_everything_back_after():
    before = legacy_readable()
    with tf32(False):
        assert tf32_in_force() == (False, False)
        assert legacy_readable() == (False, False)
    assert tf32_in_force() == (True, False)
    assert legacy_readable() == before


def test_tf32_can_be_allowed():
    with tf32(True):
        assert tf32_in_force() == (True, True)
    assert tf32_in_force() == (True, False)


def test_callers_of_the_legacy_api_find_their_setting_again():
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = True
    with tf32(False):
        assert tf32_in_force() == (False, False)
    assert legacy_readable() == (False, True)


def test_callers_of_the_new_api_find_their_setting_again():
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # now the legacy flag cannot be read
    with tf32(False):
        assert tf32_in_force() == (False, False)
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert torch.backends.cudnn.rnn.fp32_precision == "tf32"


def test_a_global_tf32_default_does_not_leak_into_strict_fp32():
    torch.backends.fp32_precision = "tf32"
    with tf32(False):
        assert tf32_in_force() == (False, False)
    assert tf32_in_force() == (True, True)
    assert torch.backends.fp32_precision == "tf32"


def test_modules_keep_their_own_mode():
    model = TinyNet().train()
    model.norm.eval()  # a frozen batch-norm in a model under training
    with measuring_conditions(model) as seen:
        assert not model.training
        assert (seen.modules, seen.modules_in_eval) == (3, 3)
        assert seen.required_for("fp32")
        assert seen.inference_mode
        assert not torch.is_grad_enabled()
    assert model.training
    assert not model.norm.training
    assert torch.is_grad_enabled()
    assert gc.isenabled()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_restored_whatever_happens(error):
    model = TinyNet().train()

    def interrupted():
        with measuring_conditions(model):
            raise error("in the middle")

    with pytest.raises(error):
        interrupted()
    assert model.training
    assert gc.isenabled()
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert tf32_in_force() == (True, False)


def test_a_disabled_gc_stays_disabled():
    gc.disable()
    try:
        with measuring_conditions(TinyNet()):
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_plain_function_has_no_modules():
    with measuring_conditions(lambda x: x) as seen:
        assert seen.modules == 0
        assert seen.required_for("fp32")


def test_default_leaves_the_switches_as_found():
    with measuring_conditions(TinyNet(), "default") as seen:
        assert (seen.tf32_convolutions, seen.tf32_matmul) == (True, False)


@pytest.mark.parametrize(
    ("override", "seen", "met"),
    [("1", (False, True), False), ("0", (False, False), True), (None, (False, False), True)],
)
def test_nvidias_own_variable_is_obeyed_over_torchs_switches(monkeypatch, override, seen, met):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if override is not None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    with measuring_conditions(TinyNet()) as conditions:
        assert (conditions.tf32_convolutions, conditions.tf32_matmul) == seen
        assert conditions.required_for("fp32") == met
