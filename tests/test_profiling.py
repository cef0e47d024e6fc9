import pytest
import torch
from fakes import TinyNet

from helpers.profiling import profile_forwards, summarise_events


def test_a_cpu_has_no_bus_to_cross():
    assert profile_forwards(TinyNet(), [torch.zeros(1, 3, 8, 8)], torch.device("cpu")) is None


def test_kernels_and_copies_are_told_apart():
    events = [
        ("sgemm", 1.0),
        ("relu", 0.5),
        ("sgemm", 1.0),
        ("Memset (Device)", 0.1),
        ("Memcpy DtoD (Device -> Device)", 0.1),
        ("Memcpy HtoD (Pageable -> Device)", 0.1),
        ("Memcpy DtoH (Device -> Pageable)", 0.1),
    ]
    found = summarise_events(events, forwards=2)
    assert found.kernels == 1.5
    assert found.kernel_ms == pytest.approx(1.25)
    assert (found.host_to_device, found.device_to_host, found.copies) == (1, 1, 2)
    assert found.kernel_names == ("sgemm", "relu")


def test_a_profile_without_kernels_proves_nothing():
    with pytest.raises(RuntimeError, match="no GPU kernel"):
        summarise_events([("Memcpy HtoD", 0.1)], forwards=1)


@pytest.mark.gpu
def test_copies_inside_a_model_are_caught():
    class Copying(TinyNet):
        def forward(self, x):
            return super().forward(x.cpu().to("cuda"))

    inputs, cuda = [torch.randn(1, 3, 8, 8, device="cuda")], torch.device("cuda")
    clean = profile_forwards(TinyNet().cuda(), inputs, cuda)
    copying = profile_forwards(Copying().cuda(), inputs, cuda)
    assert clean.copies == 0
    assert clean.kernels > 0
    assert copying.host_to_device >= copying.forwards
    assert copying.device_to_host >= copying.forwards
