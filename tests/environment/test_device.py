"""Which device is chosen, and what is said of a GPU that cannot be used: no GPU is needed here."""

import re
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
OLD_DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 12020)"
)
NO_KERNEL = "AcceleratorError: CUDA error: no kernel image is available"
ABSENT = "NVMLError_LibraryNotFound: NVML Shared Library Not Found"
MISMATCH = "NVMLError_LibRmVersionMismatch: RM has detected an NVML/RM version mismatch."
NO_NVML = {"driver": None, "gpus": []}
NO_GPU = {"problem": NO_DRIVER, "nvml": ABSENT, **NO_NVML}
DIAGNOSES = {  # what differs from a healthy machine with one GPU that torch does not see
    "healthy": ("usable", {"problem": None, "torch_gpus": 1}),
    "no GPU": ("none", NO_GPU),
    "a driver without a GPU": ("none", {"gpus": []}),
    "broken driver": ("unusable", {"nvml": MISMATCH, **NO_NVML}),
    "torch's error": ("unusable", NO_GPU | {"problem": "CUDA initialization: … Error 803"}),
    "ROCm": ("unusable", NO_GPU | {"torch_cuda": None, "torch_hip": "6.4"}),
    "built for the CPU": ("unusable", {"problem": "Torch not compiled", "torch_cuda": None}),
    "old driver": ("unusable", {"problem": OLD_DRIVER, "driver": "535.183.01"}),
    "hidden": ("unusable", {"visible_devices": ""}),
    "no kernel": ("unusable", {"problem": NO_KERNEL, "torch_gpus": 1}),
}


@pytest.fixture
def see(monkeypatch, compiles):
    """Let a test say what torch and NVML tell of a GPU that only NVML's stand-in has."""
    nvml_fake.install(monkeypatch)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    tried = []

    def say(problem=UNAVAILABLE, torch_gpus=0, torch_cuda="13.0", torch_hip=None, **others):
        visible = others.pop("visible_devices", None)
        monkeypatch.setattr(torch.version, "cuda", torch_cuda)
        monkeypatch.setattr(torch.version, "hip", torch_hip)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: torch_gpus)
        monkeypatch.setattr(
            environment, "find_cuda_problem", lambda device: tried.append(device) or problem
        )
        driver = environment.nvml.collect_driver(Reader()) | others
        monkeypatch.setattr(environment.nvml, "collect_driver", lambda read: driver)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return tried

    return say


@pytest.mark.parametrize("case", DIAGNOSES)
def test_auto_takes_the_cpu_without_a_usable_gpu_and_an_explicit_gpu_is_an_error(see, case):
    expected, seen = DIAGNOSES[case]
    see(**seen)
    machine = look("auto")
    check = next(check for check in machine.checks if check.code.startswith("gpu_"))
    assert (check.code, check.ok) == (f"gpu_{expected}", expected != "unusable")
    if expected == "usable":
        assert (machine.device, machine.reason) == (CUDA, "automatic")
        return
    assert (machine.device, machine.reason) == (CPU, "no_usable_gpu")
    with pytest.raises(DeviceError) as caught:
        look("cuda:3")
    told = MACHINE_CHECKS[check.code][2].format(**check.values)
    for fact in filter(None, seen.values()):
        if isinstance(fact, str):
            assert fact in str(caught.value)
            assert fact in told or expected == "none"
            assert fact in reason(machine) or expected == "none"


@pytest.mark.parametrize("requested", ["auto", "cuda", "cuda:1", "cpu"])
def test_usable_gpu(see, requested):
    tried = see(problem=None, torch_gpus=2)
    machine = look(requested)
    expected = {"auto": "cuda:0", "cuda": "cuda:0"}.get(requested, requested)
    assert str(machine.device) == machine.facts["device"] == expected
    assert machine.reason == ("automatic" if requested == "auto" else "asked")
    assert ("automatiquement" in reason(machine)) == (requested == "auto")
    assert {device.type for device in tried} == {machine.device.type}  # no context for the CPU


def test_only_cpu_and_cuda_are_measured():
    with pytest.raises(DeviceError):
        look("meta")


@pytest.mark.parametrize(
    ("cuda", "scope", "code"),
    [
        ({"nvml": None}, None, None),
        ({"nvml": ABSENT, "torch_gpus": 0}, None, None),
        ({"nvml": ABSENT, "torch_gpus": 1}, None, "nvml"),
        ({"nvml": MISMATCH, "torch_gpus": 0}, None, "nvml"),
        ({"nvml": None}, "MIG instance", "mig"),
        ({"nvml": None}, "parent GPU of a MIG instance", "mig_parent"),
    ],
)
def test_what_nvml_does_not_tell_is_said(checks_of, cuda, scope, code):
    checks = checks_of(cuda=cuda, gpu={"nvml_reads": scope})
    found = {c: check.ok for c, check in checks.items() if c.startswith(("nvml", "mig"))}
    assert found == ({code: code != "nvml"} if code else {})


# --- what torch and NVML tell


def warns():
    warnings.warn("CUDA initialization: driver too old (found version 12020)", stacklevel=1)
    return False


def mismatch():
    raise RuntimeError("Unexpected error from cudaGetDeviceCount(). Error 803: mismatch\nmore")


@pytest.mark.parametrize(
    ("available", "words"),
    [(warns, "driver too old"), (lambda: False, "Error 803: mismatch")],
    ids=["torch's warning, not shown", "its words again on a second call"],
)
def test_why_torch_cannot_use_cuda(monkeypatch, available, words):
    monkeypatch.setattr(torch.cuda, "is_available", available)
    monkeypatch.setattr(torch.cuda, "init", mismatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert words in find_cuda_problem(CPU)
    assert collect_cuda(CPU, Reader())["diagnosis"] == "unusable"


def test_gpu_that_is_available_but_runs_no_kernel(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "arange", lambda *_, **__: mismatch())
    assert find_cuda_problem(CPU) is None
    assert find_cuda_problem(CUDA).endswith("Error 803: mismatch")


def gpu_of(monkeypatch, **properties) -> dict:
    answers = nvml_fake.install(monkeypatch, **properties)
    answers["nvmlDeviceGetPersistenceMode"] = pynvml.NVMLError_NotSupported
    return collect_gpu(CUDA, Reader())


def test_driver_and_gpus_as_nvml_sees_them(monkeypatch):
    nvml_fake.install(monkeypatch)
    cuda = collect_cuda(CPU, Reader())
    assert (cuda["driver"], cuda["driver_cuda"]) == ("580.95.05", "13.1")
    assert re.fullmatch(r"9\.\d+\.\d+", cuda["cudnn"] or "9.24.0")
    assert [gpu["uuid"] for gpu in cuda["gpus"]] == ["GPU-a", "GPU-b"]


def test_gpu_is_matched_by_uuid_not_by_index(monkeypatch):
    # CUDA_VISIBLE_DEVICES=1 makes NVML's second GPU torch's cuda:0
    gpu = gpu_of(monkeypatch)
    assert gpu["uuid"] == "GPU-b"
    assert gpu["sm_clock_mhz"] == 1980
    assert (gpu["power_limit_w"], gpu["ecc"], gpu["memory_gib"]) == (700.0, True, 80.0)
    assert gpu["compute_capability"] == "9.0"
    assert gpu["persistence_mode"] is None  # NVML refuses


@pytest.mark.parametrize(("bus", "clock"), [(0x41, 1980), (0x99, None)])
def test_gpu_unknown_by_uuid_is_found_by_its_bus_or_gets_no_readings(monkeypatch, bus, clock):
    gpu = gpu_of(monkeypatch, uuid="z", pci_bus_id=bus)
    assert gpu["name"] == "NVIDIA H100"
    assert gpu["sm_clock_mhz"] == clock


MIG_CASES = {  # torch's UUID, CUDA_VISIBLE_DEVICES, UUIDs that NVML knows, MIG mode, what is read
    "by torch's UUID": ("m", None, {"MIG-m"}, 1, "MIG instance"),
    "by the variable": ("b", "MIG-m", {"MIG-m", "GPU-b"}, 1, "MIG instance"),
    "the parent by UUID": ("b", None, {"GPU-b"}, 1, "parent GPU of a MIG instance"),
    "the parent by bus": ("m", "MIG-m", set(), 1, "parent GPU of a MIG instance"),
    "no MIG": ("b", "GPU-b", {"GPU-b"}, 0, None),
}


@pytest.mark.parametrize("case", MIG_CASES)
def test_a_mig_instance_is_read_itself_or_as_its_parent_and_it_is_said(case, monkeypatch):
    uuid, visible, known, mode, expected = MIG_CASES[case]
    answers = nvml_fake.install(monkeypatch, uuid=uuid)
    answers["nvmlDeviceGetHandleByUUID"] = lambda name: {name: name for name in known}[name]
    answers["nvmlDeviceGetMigMode"] = [mode, mode]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu = collect_gpu(CUDA, Reader())
    assert gpu["nvml_reads"] == expected
    assert gpu["sm_clock_mhz"] == 1980


@pytest.mark.gpu
def test_real_gpu_is_chosen_and_is_one_that_nvml_lists():
    machine = look("auto")
    gpu, cuda = machine.facts["gpu"], machine.facts["cuda"]
    assert machine.device.type == "cuda"
    assert machine.device.index is not None
    assert {entry["uuid"]: entry["name"] for entry in cuda["gpus"]}[gpu["uuid"]] == gpu["name"]
    assert 0 < gpu["sm_clock_mhz"] <= gpu["sm_clock_max_mhz"]
    assert cuda["driver"]
    with pytest.raises(DeviceError):
        look("cuda:99")
