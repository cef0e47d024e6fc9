import os
import subprocess
import sys
from contextlib import nullcontext, suppress

import pytest
import torch
from fakes import TinyNet

from helpers.clocks import profiling, try_profile
from helpers.clocks.profiling import count_kernels, detached_profile, summarise_events

INPUTS, CUDA = [torch.zeros(1, 3, 8, 8)], torch.device("cuda")


def test_kernels_and_copies_are_told_apart():
    moved = ("Memcpy DtoD (Device -> Device)", "Memcpy HtoD (Pageable -> Device)")
    moved += ("Memcpy DtoH (Device -> Pageable)", "Memset (Device)")
    events = [("sgemm", 1.0), ("relu", 0.5), ("sgemm", 1.0), *((name, 0.1) for name in moved)]
    found = summarise_events(events, forwards=2)
    assert found.kernels == 1.5
    assert found.kernel_ms == pytest.approx(1.25)
    assert (found.host_to_device, found.device_to_host) == (1, 1)
    assert found.kernel_names == ("sgemm", "relu")
    with pytest.raises(RuntimeError, match="no GPU kernel"):
        summarise_events(events[3:], forwards=1)  # proves nothing


def test_a_profiler_that_fails_leaves_its_reason(monkeypatch):
    def fails(*_, **__):
        raise OSError("CUPTI")

    monkeypatch.setattr(profiling, "detached_profile", fails)
    monkeypatch.setattr(profiling, "synchronizer", lambda device: lambda: None)
    monkeypatch.setattr(profiling, "move_inputs", lambda inputs, device: inputs)
    assert try_profile(TinyNet(), INPUTS, CUDA) == (None, "OSError: CUPTI")
    assert count_kernels(TinyNet(), INPUTS[0], CUDA) is None
    assert try_profile(TinyNet(), INPUTS, torch.device("cpu")) == (None, "")


@pytest.mark.parametrize(("seen", "kernels"), [(0, None), (1, 0), (69, 68)])
def test_kernels_are_counted_beside_one_of_its_own_that_proves_the_profiler(
    monkeypatch, seen, kernels
):
    monkeypatch.setattr(profiling, "detached_profile", lambda device: nullcontext())
    monkeypatch.setattr(profiling, "_gpu_events", lambda prof: [("k", 1.0)] * seen)
    assert count_kernels(TinyNet(), INPUTS[0], torch.device("cpu")) == kernels


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("before", ["0", None])
@pytest.mark.parametrize("error", [None, ValueError])
def test_the_profiler_is_detached_even_after_an_error(monkeypatch, error, before):
    told = []
    tell = lambda device: lambda: told.append(os.environ["TEARDOWN_CUPTI"])  # noqa: E731
    monkeypatch.setattr(profiling, "synchronizer", tell)
    monkeypatch.delenv("TEARDOWN_CUPTI", raising=False)
    if before is not None:
        monkeypatch.setenv("TEARDOWN_CUPTI", before)
    with suppress(ValueError), detached_profile(torch.device("cpu")):
        told.clear()
        if error:
            raise error
    assert len(told) >= 50
    assert set(told) == {"1"}
    assert os.environ.get("TEARDOWN_CUPTI") == before


@pytest.mark.gpu
def test_copies_inside_a_model_are_caught():
    class Copying(TinyNet):
        def forward(self, x):
            return super().forward(x.cpu().to("cuda"))

    clean, copying = (try_profile(m.cuda(), INPUTS, CUDA)[0] for m in (TinyNet(), Copying()))
    assert (clean.host_to_device, clean.device_to_host) == (0, 0)
    assert clean.kernels > 0
    assert min(copying.host_to_device, copying.device_to_host) >= copying.forwards


# CUPTI has one subscriber at a time: who can subscribe finds it free.
SUBSCRIBE = """
import ctypes, torch
from helpers.clocks.profiling import detached_profile
device, x = torch.device("cuda"), torch.ones(8, device="cuda")
with detached_profile(device) as prof:
    x + x
    torch.cuda.synchronize()
assert any(event.device_type == torch.autograd.DeviceType.CUDA for event in prof.events())
path = next(line.split()[-1] for line in open("/proc/self/maps") if "libcupti.so" in line)
callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
subscriber, nothing = ctypes.c_void_p(), callback(lambda *given: None)
code = ctypes.CDLL(path).cuptiSubscribe(ctypes.byref(subscriber), nothing, None)
print("code", code)
"""


@pytest.mark.gpu
def test_no_profiler_stays_attached():
    run = [sys.executable, "-c", SUBSCRIBE]
    found = subprocess.run(run, capture_output=True, text=True, check=True, timeout=120)
    assert "code 0" in found.stdout
