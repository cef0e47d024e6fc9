import gc
from contextlib import suppress

import pytest
import torch
from fakes import TinyNet

from helpers.clocks.checks import check_repeats
from helpers.clocks.conditions import measuring_conditions, tf32, tf32_in_force
from helpers.environment.facts import attempt

BACKENDS = torch.backends
NEWER = (BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn, BACKENDS.cuda.matmul)
NEWER += (BACKENDS.mkldnn.conv, BACKENDS.mkldnn.matmul)


@pytest.fixture(autouse=True)
def fresh_switches():
    """Each test starts from PyTorch's defaults and leaves them behind."""

    def reset():
        BACKENDS.fp32_precision = "none"
        torch.set_float32_matmul_precision("highest")
        BACKENDS.cudnn.allow_tf32 = True
        for owner in NEWER[2:]:
            owner.fp32_precision = "none"

    reset()
    yield
    reset()


def switches():
    """All of them as the caller reads them; None: torch refuses, the older contradict the newer."""
    owners = (BACKENDS.cudnn, BACKENDS.cuda.matmul)
    older = [attempt(getattr, owner, "allow_tf32") for owner in owners]
    older.append(attempt(torch.get_float32_matmul_precision))
    return older, [owner.fp32_precision for owner in (BACKENDS, *NEWER)]


SETTINGS = {  # what a caller set by the older switches, then by the newer, and TF32 then in force
    "nothing": ((), {}, (True, False)),
    "older, bf16 on a CPU": ((False, "medium"), {}, (False, True)),
    "newer": ((), {BACKENDS.cudnn.conv: "ieee"}, (False, False)),
    "global": ((), {BACKENDS: "tf32"}, (True, True)),
    "mixed": ((False, "high"), {BACKENDS.cuda.matmul: "ieee"}, (False, False)),
    "mixed, on a CPU": ((True, "high"), {BACKENDS.mkldnn.matmul: "bf16"}, (True, True)),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_tf32_is_as_asked_inside_and_every_caller_finds_its_setting_again(case):
    older, newer, found = SETTINGS[case]
    if older:
        BACKENDS.cudnn.allow_tf32 = older[0]
        torch.set_float32_matmul_precision(older[1])
    for owner, value in newer.items():
        owner.fp32_precision = value
    before = switches()
    assert tf32_in_force() == found
    for allowed in (False, True):
        with tf32(allowed):
            assert tf32_in_force() == (allowed, allowed)
            assert BACKENDS.cuda.matmul.allow_tf32 == BACKENDS.cudnn.allow_tf32 == allowed
        assert switches() == before
    for owner in NEWER:  # now the older one can be read
        owner.fp32_precision = "ieee"
    assert torch.get_float32_matmul_precision() == (older[1] if older else "highest")


@pytest.mark.parametrize("collects", [True, False])
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_all_holds_inside_and_is_restored_whatever_happens(request, error, collects):
    request.addfinalizer(gc.enable)
    (gc.enable if collects else gc.disable)()
    model, before = TinyNet().train(), switches()
    model.norm.eval()  # a frozen batch-norm in a model under training
    with suppress(RuntimeError, KeyboardInterrupt), measuring_conditions(model) as seen:
        assert (seen.modules, seen.modules_in_eval) == (3, 3)
        assert seen.required_for("fp32")
        assert not seen.required_for("tf32")
        assert (torch.is_grad_enabled(), gc.isenabled()) == (False, False)
        if error:
            raise error("in the middle")
    assert (model.training, model.norm.training, gc.isenabled()) == (True, False, collects)
    assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (True, False)
    assert switches() == before


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
