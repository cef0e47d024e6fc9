"""Which device is chosen, and what is said of a GPU that cannot be used: no GPU is needed here."""

import re
import warnings

import nvml_fake
import pynvml
import pytest
import torch

from helpers import environment
from helpers.display.machine import MACHINE_CHECKS, reason
from helpers.environment import DeviceError, look
from helpers.environment.compile import CompileCheck
from helpers.environment.facts import Reader
from helpers.environment.gpu import (
    MINIMUM_DRIVER,
    UNAVAILABLE,
    collect_cuda,
    collect_gpu,
    diagnose,
    find_cuda_problem,
)

H100 = {"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1"}


def facts(**changes) -> dict:
    """What collect_cuda says on a healthy machine with one GPU, with changes."""
    cuda = {
        "usable": True,
        "problem": None,
        "torch_cuda": "13.0",
        "torch_hip": None,
        "torch_gpus": 1,
        "cudnn": "9.19.0",
        "driver": "580.95.05",
        "driver_cuda": "13.0",
        "nvml": None,
        "nvml_remedy": None,
        "gpus": [H100],
        "visible_devices": None,
        **changes,
    }
    cuda["needed_driver"] = MINIMUM_DRIVER.get((cuda["torch_cuda"] or "").split(".")[0])
    return cuda | {"diagnosis": diagnose(cuda)}


NO_DRIVER = "RuntimeError: Found no NVIDIA driver on your system. Please check that …"
ABSENT = "NVMLError_LibraryNotFound: NVML Shared Library Not Found"
MISMATCH = "NVMLError_LibRmVersionMismatch: RM has detected an NVML/RM version mismatch."
BROKEN = {"usable": False, "problem": UNAVAILABLE, "torch_gpus": 0}
NOTHING = {**BROKEN, "gpus": [], "driver": None, "driver_cuda": None}
NO_GPU = facts(**NOTHING, nvml=ABSENT)
OLD_DRIVER = facts(**BROKEN, driver="535.183.01", driver_cuda="12.2")
DRIVER_FAILS = facts(**NOTHING, nvml=MISMATCH)
DIAGNOSES = [
    ("usable", facts()),
    ("usable", facts(torch_cuda=None, torch_hip="6.4")),
    ("none", NO_GPU),
    ("none", facts(**NOTHING)),  # a driver, and no GPU in the machine
    ("none", facts(**NOTHING | {"problem": NO_DRIVER}, nvml=ABSENT)),
    ("broken", DRIVER_FAILS),
    ("broken", facts(**NOTHING | {"problem": "CUDA initialization: … Error 803"}, nvml=ABSENT)),
    ("rocm_build", facts(**BROKEN, torch_cuda=None, torch_hip="6.4")),
    ("cpu_build", facts(**BROKEN, torch_cuda=None)),
    ("old_driver", OLD_DRIVER),
    ("old_driver", facts(**BROKEN, driver="580.65.05")),
    ("unusable", facts(**BROKEN, driver="580.65.06")),
    ("old_driver", facts(**BROKEN, torch_cuda="12.8", driver="470.82.01", driver_cuda="11.4")),
    ("unusable", facts(**BROKEN, torch_cuda="12.8", driver="525.60.13")),
    ("old_driver", facts(**BROKEN, driver="535.183.01", visible_devices="")),
    ("hidden", facts(**BROKEN, visible_devices="")),
    ("unusable", facts(usable=False, problem="no kernel image", visible_devices="0")),
    ("unusable", facts(**BROKEN, torch_cuda="99.0")),  # a CUDA version not known yet
    ("unusable", facts(**BROKEN, driver=None)),
]


@pytest.mark.parametrize(("expected", "cuda"), DIAGNOSES)
def test_diagnosis_and_its_sentence(checks_of, expected, cuda):
    assert cuda["diagnosis"] == expected
    check = checks_of(cuda=cuda)[f"gpu_{expected}"]
    assert check.ok == (expected in ("usable", "none"))
    told = MACHINE_CHECKS[check.code][1].format(**check.values)
    assert "None" not in told
    assert MISMATCH in told or cuda["nvml"] != MISMATCH


@pytest.mark.parametrize(
    ("cuda", "scope", "code", "ok"),
    [
        (facts(), None, None, None),
        (NO_GPU, None, None, None),
        (DRIVER_FAILS, None, "nvml", False),
        (facts(gpus=[], driver=None, nvml=ABSENT), None, "nvml", False),
        (facts(nvml_remedy="`pip uninstall pynvml`"), None, "nvml_package", False),
        (facts(), "MIG instance", "mig", True),
        (facts(), "parent GPU of a MIG instance", "mig_parent", True),
    ],
)
def test_what_nvml_does_not_tell_is_said(checks_of, cuda, scope, code, ok):
    checks = checks_of(cuda=cuda, gpu={"nvml_reads": scope})
    found = {c: check.ok for c, check in checks.items() if c.startswith(("nvml", "mig"))}
    assert found == ({code: ok} if code else {})


@pytest.fixture
def seen(monkeypatch):
    """Let a test say what collect_cuda finds of a GPU that only NVML's stand-in has."""
    nvml_fake.install(monkeypatch)
    monkeypatch.setattr(environment, "check_compile_once", lambda device: CompileCheck(True, ""))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    tried = []

    def say(cuda: dict) -> list:
        collect = lambda *device: tried.append(device) or cuda  # noqa: E731
        monkeypatch.setattr(environment, "collect_cuda", collect)
        return tried

    return say


@pytest.mark.parametrize(
    ("requested", "expected"),
    [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_usable_gpu(seen, requested, expected):
    tried = seen(facts())
    machine = look(requested)
    assert str(machine.device) == machine.facts["device"] == expected
    assert machine.reason == ("automatic" if requested == "auto" else "asked")
    assert ("automatiquement" in reason(machine)) == (requested == "auto")
    assert tried != [()] or requested == "cpu"  # an explicit CPU leaves no CUDA context


@pytest.mark.parametrize("cuda", [NO_GPU, OLD_DRIVER, DRIVER_FAILS])
def test_without_a_usable_gpu_auto_takes_the_cpu_and_an_explicit_gpu_is_an_error(seen, cuda):
    seen(cuda)
    machine = look("auto")
    assert (machine.device, machine.reason) == (torch.device("cpu"), "no_usable_gpu")
    assert len(reason(machine)) > 20
    with pytest.raises(DeviceError) as caught:
        look("cuda:3")
    for fact in (cuda["problem"], cuda["nvml"], cuda["driver"]):
        assert fact is None or fact in str(caught.value)
    with pytest.raises(DeviceError, match="only the CPU and CUDA GPUs"):
        look("meta")


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
        assert words in find_cuda_problem(None)
    assert collect_cuda()["diagnosis"] == "broken"


def test_gpu_that_is_available_but_runs_no_kernel(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "arange", lambda *_, **__: mismatch())
    assert find_cuda_problem(None) is None
    assert find_cuda_problem(torch.device("cuda")).endswith("Error 803: mismatch")


def gpu_of(monkeypatch, **properties) -> dict:
    answers = nvml_fake.install(monkeypatch, **properties)
    answers["nvmlDeviceGetPersistenceMode"] = pynvml.NVMLError_NotSupported
    return collect_gpu(torch.device("cuda", 0), Reader())


def test_driver_and_gpus_as_nvml_sees_them(monkeypatch):
    nvml_fake.install(monkeypatch)
    cuda = collect_cuda()
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
    gpu = collect_gpu(torch.device("cuda", 0), Reader())
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
