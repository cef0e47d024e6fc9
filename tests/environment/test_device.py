"""Which device is chosen, and what is said of a GPU that cannot be used: no GPU is needed here."""

import warnings

import nvml_fake
import pynvml
import pytest
import torch

from helpers import environment
from helpers.display.machine import MACHINE_CHECKS, reason
from helpers.environment import UNAVAILABLE, DeviceError, collect_cuda, find_cuda_problem, look
from helpers.environment.facts import Reader
from helpers.environment.nvml import collect_gpu

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
NO_DRIVER = "RuntimeError: Found no NVIDIA driver on your system. Please check that …"
OLD = "CUDA initialization: The NVIDIA driver on your system is too old (found version 12020)"
NO_KERNEL = "AcceleratorError: CUDA error: no kernel image is available"
ABSENT = "NVMLError_LibraryNotFound: NVML Shared Library Not Found"
MISMATCH = "NVMLError_LibRmVersionMismatch: RM has detected an NVML/RM version mismatch."
NO_NVML = {"driver": None, "gpus": []}
NO_GPU = {"problem": NO_DRIVER, "nvml": ABSENT, **NO_NVML}
DIAGNOSES = {  # what differs from a healthy machine with one GPU that torch does not see
    "no GPU": ("none", NO_GPU),
    "a driver without a GPU": ("none", {"gpus": []}),
    "broken driver": ("unusable", {"nvml": MISMATCH, **NO_NVML}),
    "torch's error": ("unusable", NO_GPU | {"problem": "CUDA initialization: … Error 803"}),
    "built for the CPU": ("unusable", {"problem": "Torch not compiled with CUDA enabled"}),
    "old driver": ("unusable", {"problem": OLD, "driver": "535.183.01"}),
    "hidden": ("unusable", {"visible": ""}),
    "no kernel": ("unusable", {"problem": NO_KERNEL, "count": 1}),
}


@pytest.fixture
def see(monkeypatch, compiles):
    """Let a test say what torch and NVML tell of a GPU that only NVML's stand-in has."""
    nvml_fake.install(monkeypatch)
    tried, driver = [], environment.nvml.collect_driver(Reader())

    def say(problem=UNAVAILABLE, count=0, visible="0", **nvml):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(environment.nvml, "collect_driver", lambda read: driver | nvml)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        find = lambda device: tried.append(device.type) or problem  # noqa: E731
        monkeypatch.setattr(environment, "find_cuda_problem", find)
        return tried

    return say


@pytest.mark.parametrize("case", DIAGNOSES)
def test_auto_takes_the_cpu_without_a_usable_gpu_and_an_explicit_gpu_is_an_error(see, case):
    expected, seen = DIAGNOSES[case]
    see(**seen)
    machine = look("auto")
    check = next(check for check in machine.checks if check.code.startswith("gpu_"))
    assert (check.code, check.ok) == (f"gpu_{expected}", expected == "none")
    assert (machine.device, machine.reason) == (CPU, "no_usable_gpu")
    with pytest.raises(DeviceError) as caught:
        look("cuda:3")
    for fact in (value for value in seen.values() if isinstance(value, str)):
        assert fact in str(caught.value)
        assert expected == "none" or fact in reason(machine)
    assert len(MACHINE_CHECKS[check.code][1 if check.ok else 2].format(**check.values)) > 20


@pytest.mark.parametrize("requested", ["auto", "cuda", "cuda:1", "cpu"])
def test_usable_gpu(see, requested):
    tried = see(problem=None, count=2)
    machine = look(requested)
    expected = requested if requested in ("cuda:1", "cpu") else "cuda:0"
    assert str(machine.device) == machine.facts["device"] == expected
    assert machine.reason == ("automatic" if requested == "auto" else "asked")
    assert ("automatiquement" in reason(machine)) == (requested == "auto")
    assert tried == [machine.device.type]  # the CPU leaves no CUDA context
    with pytest.raises(DeviceError):
        look("meta")


def test_why_torch_cannot_use_cuda_or_runs_no_kernel(monkeypatch):
    def mismatch(*args, **options):
        raise RuntimeError("Unexpected error from cudaGetDeviceCount(). Error 803: mismatch\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: warnings.warn(OLD, stacklevel=1))
    monkeypatch.setattr(torch.cuda, "init", mismatch)
    with warnings.catch_warnings(action="error"):
        assert find_cuda_problem(CPU).endswith("Error 803: mismatch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "arange", mismatch)
    assert find_cuda_problem(CPU) is None
    assert find_cuda_problem(CUDA).endswith("Error 803: mismatch")


def test_driver_and_gpus_as_nvml_sees_them_in_their_units(monkeypatch):
    answers = nvml_fake.install(monkeypatch)
    answers["nvmlDeviceGetTemperature"] = pynvml.NVMLError_NotSupported
    cuda, gpu = collect_cuda(CPU, Reader()), collect_gpu(CUDA, Reader())
    assert (cuda["driver"], cuda["driver_cuda"]) == ("580.95.05", "13.1")
    assert cuda["gpus"] == ["GPU-a", "GPU-b"]
    assert (cuda["cudnn"] or "9.24.0").startswith("9.")
    assert gpu["uuid"] == "GPU-b"
    assert (gpu["power_limit_w"], gpu["temperature_c"], gpu["memory_gib"]) == (700.0, None, 80.0)
    assert gpu["compute_capability"] == "9.0"


# NVML's second GPU is torch's cuda:0, as with CUDA_VISIBLE_DEVICES=1: never matched by index
HANDLES = {  # torch's UUID and bus, UUIDs that NVML knows, what is read
    "by UUID": ("b", 0x41, {"GPU-b"}, (1980, False)),
    "by bus": ("b", 0x41, set(), (1980, False)),
    "unknown": ("z", 0x99, set(), (None, False)),
    "MIG": ("m", 0x41, {"MIG-m"}, (1980, True)),
    "MIG's parent by UUID": ("b", 0x41, {"GPU-b"}, (1980, True)),
    "MIG's parent by bus": ("m", 0x41, set(), (1980, True)),
}


@pytest.mark.parametrize("case", HANDLES)
def test_a_gpu_or_mig_instance_is_read_itself_or_as_its_parent_and_it_is_said(case, monkeypatch):
    uuid, bus, known, expected = HANDLES[case]
    answers = nvml_fake.install(monkeypatch, uuid=uuid, pci_bus_id=bus)
    answers["nvmlDeviceGetHandleByUUID"] = lambda name: {name: name for name in known}[name]
    answers["nvmlDeviceGetMigMode"] = [int("parent" in case), 0]
    gpu = collect_gpu(CUDA, Reader())
    assert (gpu["sm_clock_mhz"], gpu["mig"]) == expected


@pytest.mark.gpu
def test_real_gpu_is_chosen_and_is_one_that_nvml_lists():
    machine = look("auto")
    gpu, cuda = machine.facts["gpu"], machine.facts["cuda"]
    assert machine.device.type == "cuda"
    assert machine.device.index is not None
    assert gpu["uuid"] in cuda["gpus"]
    assert 0 < gpu["sm_clock_mhz"] <= gpu["sm_clock_max_mhz"]
    with pytest.raises(DeviceError):
        look("cuda:99")
