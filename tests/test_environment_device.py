"""Which device is chosen, and what is said of a GPU that cannot be used: no GPU is needed here."""

import contextlib
import warnings
from types import SimpleNamespace

import pynvml
import pytest
import torch

from helpers.environment import device as environment_device
from helpers.environment import gpu as environment_gpu
from helpers.environment.device import (
    ENGLISH,
    FRENCH,
    DeviceError,
    choose_device,
    diagnose_gpu,
    explain_gpu,
)
from helpers.environment.gpu import collect_cuda, collect_gpu, find_cuda_problem

H100 = {"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1"}
CPU = torch.device("cpu")


def facts(**changes) -> dict:
    """What collect_cuda says on a healthy machine with one GPU, with changes."""
    healthy = {
        "usable": True,
        "problem": None,
        "torch_cuda": "13.0",
        "torch_gpus": 1,
        "cudnn": "9.19.0",
        "driver": "580.95.05",
        "driver_cuda": "13.0",
        "gpus": [H100],
        "visible_devices": None,
    }
    return healthy | changes


BROKEN = {"usable": False, "problem": "is_available() is False", "torch_gpus": 0}
NO_GPU = facts(**BROKEN, gpus=[], driver=None, driver_cuda=None)
OLD_DRIVER = facts(**BROKEN, driver="535.183.01", driver_cuda="12.2")
DIAGNOSES = [
    ("usable", facts()),
    ("usable", facts(gpus=[], driver=None)),  # NVML hidden, torch works
    ("none", NO_GPU),
    ("cpu_build", facts(**BROKEN, torch_cuda=None)),
    ("old_driver", OLD_DRIVER),
    ("old_driver", facts(**BROKEN, driver="580.65.05")),
    ("unusable", facts(**BROKEN, driver="580.65.06")),
    ("old_driver", facts(**BROKEN, torch_cuda="12.8", driver="470.82.01", driver_cuda="11.4")),
    ("unusable", facts(**BROKEN, torch_cuda="12.8", driver="525.60.13")),
    ("old_driver", OLD_DRIVER | {"visible_devices": ""}),
    ("hidden", facts(**BROKEN, visible_devices="")),
    ("unusable", facts(usable=False, problem="no kernel image", visible_devices="0")),
    ("unusable", facts(**BROKEN, torch_cuda="99.0")),  # a CUDA version not known yet
    ("unusable", facts(**BROKEN, driver=None)),
]


@pytest.mark.parametrize(("expected", "cuda"), DIAGNOSES)
def test_diagnosis_and_both_sentences(expected, cuda):
    assert diagnose_gpu(cuda) == expected
    sentences = [explain_gpu(cuda, FRENCH)]
    if expected != "usable":
        sentences.append(explain_gpu(cuda, ENGLISH))
    assert all("None" not in sentence and "{" not in sentence for sentence in sentences)


def test_old_driver_names_the_driver_needed_and_what_to_install_instead():
    for language in (FRENCH, ENGLISH):
        text = explain_gpu(OLD_DRIVER, language)
        for part in (H100["name"], "535.183.01", "580.65.06", "CUDA 13.0", "CUDA 12.x"):
            assert part in text


def test_a_machine_without_gpu_gets_a_plain_banner():
    assert "tout est mesuré sur le CPU" in explain_gpu(NO_GPU, FRENCH)


@pytest.fixture
def seen(monkeypatch):
    """Let a test say what collect_cuda finds, and torch name its GPU."""

    def say(cuda: dict) -> None:
        monkeypatch.setattr(environment_device, "collect_cuda", lambda device=None: cuda)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: H100["name"])

    return say


@pytest.mark.parametrize(
    ("requested", "expected"),
    [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_usable_gpu(seen, requested, expected):
    seen(facts())
    choice = choose_device(requested)
    assert str(choice.device) == expected
    assert ("automatiquement" in choice.reason) == (requested == "auto")
    assert (H100["name"] in choice.reason) == (requested != "cpu")


@pytest.mark.parametrize("cuda", [NO_GPU, OLD_DRIVER])
def test_auto_without_usable_gpu_takes_the_cpu_and_says_why(seen, cuda):
    seen(cuda)
    choice = choose_device("auto")
    assert choice.device == CPU
    assert explain_gpu(cuda, FRENCH) in choice.reason


@pytest.mark.parametrize("requested", ["cuda", "cuda:3"])
@pytest.mark.parametrize("cuda", [NO_GPU, OLD_DRIVER])
def test_explicit_gpu_that_cannot_be_had_is_an_error(seen, requested, cuda):
    seen(cuda)
    with pytest.raises(DeviceError) as caught:
        choose_device(requested)
    assert f"device='{requested}' cannot be had" in str(caught.value)
    assert explain_gpu(cuda, ENGLISH) in str(caught.value)


def test_other_accelerators_are_refused():
    with pytest.raises(DeviceError, match="only the CPU and CUDA GPUs"):
        choose_device("meta")


def test_explicit_cpu_leaves_no_cuda_context(monkeypatch):
    tried = []
    monkeypatch.setattr(environment_device, "collect_cuda", lambda *a: tried.append(a) or facts())
    choose_device("cpu")
    assert tried == [()]


# --- what torch and NVML tell -----------------------------------------------------------------


def test_warning_of_torch_becomes_the_reason_and_is_not_shown(monkeypatch):
    def too_old() -> bool:
        warnings.warn("CUDA initialization: driver too old (found version 12020)", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", too_old)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "driver too old" in find_cuda_problem(None)


def test_gpu_that_is_available_but_runs_no_kernel(monkeypatch):
    def no_kernel(*args, **options):
        raise RuntimeError("no kernel image is available for execution on the device\nSearch …")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "arange", no_kernel)
    assert find_cuda_problem(None) is None
    told = find_cuda_problem(torch.device("cuda"))
    assert told.startswith("RuntimeError: no kernel image")
    assert "\n" not in told


def test_gpu_index_out_of_range_says_what_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "2 GPU(s), cuda:0 to cuda:1" in find_cuda_problem(torch.device("cuda:2"))


def test_without_nvml_nothing_is_seen(monkeypatch):
    def absent():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    cuda = collect_cuda()
    assert (cuda["driver"], cuda["driver_cuda"], cuda["gpus"]) == (None, None, [])


@pytest.fixture
def two_gpus(monkeypatch):
    """NVML that lists GPU-a then GPU-b; a handle is the GPU's UUID."""

    def by_uuid(uuid):
        if uuid not in ("GPU-a", "GPU-b"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    def not_supported(*args):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: "580.95.05",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 13010,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: ("GPU-a", "GPU-b")[index],
        "nvmlDeviceGetHandleByUUID": by_uuid,
        "nvmlDeviceGetHandleByPciBusId": lambda bus: {"00000000:41:00.0": "GPU-b"}[bus],
        "nvmlDeviceGetName": lambda handle: f"name of {handle}",
        "nvmlDeviceGetUUID": lambda handle: handle,
        "nvmlDeviceGetClockInfo": lambda handle, kind: {"GPU-a": 345, "GPU-b": 1980}[handle],
        "nvmlDeviceGetMaxClockInfo": lambda handle, kind: 1980,
        "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
        "nvmlDeviceGetTemperature": lambda handle, kind: 54,
        "nvmlDeviceGetEccMode": lambda handle: [1, 1],
        "nvmlDeviceGetPersistenceMode": not_supported,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)


def pretend_gpu(monkeypatch, **properties) -> torch.device:
    seen = {
        "name": "NVIDIA H100",
        "major": 9,
        "minor": 0,
        "total_memory": 80 * 2**30,
        "multi_processor_count": 132,
    }
    told = SimpleNamespace(**seen | properties)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: told)
    return torch.device("cuda", 0)


def test_driver_and_gpus_as_nvml_sees_them(two_gpus):
    cuda = collect_cuda()
    assert (cuda["driver"], cuda["driver_cuda"]) == ("580.95.05", "13.1")
    assert [gpu["uuid"] for gpu in cuda["gpus"]] == ["GPU-a", "GPU-b"]


def test_gpu_is_matched_by_uuid_not_by_index(two_gpus, monkeypatch):
    # CUDA_VISIBLE_DEVICES=1 makes NVML's second GPU torch's cuda:0
    gpu = collect_gpu(pretend_gpu(monkeypatch, uuid="b"))
    assert gpu["uuid"] == "GPU-b"
    assert gpu["sm_clock_mhz"] == 1980
    assert (gpu["power_limit_w"], gpu["ecc"], gpu["memory_gib"]) == (700.0, True, 80.0)
    assert gpu["compute_capability"] == "9.0"


def test_gpu_is_matched_by_bus_where_torch_has_no_uuid(two_gpus, monkeypatch):
    bus = {"pci_domain_id": 0, "pci_bus_id": 0x41, "pci_device_id": 0}
    gpu = collect_gpu(pretend_gpu(monkeypatch, **bus))
    assert gpu["uuid"] is None
    assert gpu["sm_clock_mhz"] == 1980


def test_gpu_unknown_to_nvml_gets_no_other_gpus_readings(two_gpus, monkeypatch):
    gpu = collect_gpu(pretend_gpu(monkeypatch, uuid="z"))
    assert gpu["name"] == "NVIDIA H100"
    assert gpu["sm_clock_mhz"] is None


def test_reading_that_nvml_refuses_is_none(two_gpus, monkeypatch):
    assert collect_gpu(pretend_gpu(monkeypatch, uuid="a"))["persistence_mode"] is None


def test_no_gpu_to_describe_on_the_cpu():
    assert collect_gpu(CPU) is None


@pytest.mark.parametrize(
    ("encoded", "text"), [(91900, "9.19.0"), (8902, "8.9.2"), (92400, "9.24.0"), (None, None)]
)
def test_cudnn_version_is_readable(monkeypatch, encoded, text):
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: encoded)
    assert environment_gpu._cudnn_version() == text


# --- a real GPU -------------------------------------------------------------------------------


@pytest.mark.gpu
def test_real_gpu_is_chosen_and_is_one_that_nvml_lists():
    choice = choose_device("auto")
    assert choice.device.type == "cuda"
    assert choice.device.index is not None
    gpu = collect_gpu(choice.device)
    listed = {entry["uuid"]: entry["name"] for entry in choice.cuda["gpus"]}
    assert listed[gpu["uuid"]] == gpu["name"]
    assert 0 < gpu["sm_clock_mhz"] <= gpu["sm_clock_max_mhz"]
    assert choice.cuda["driver"]


@pytest.mark.gpu
def test_real_gpu_index_out_of_range_is_an_error():
    with pytest.raises(DeviceError, match=r"there is no cuda:99"):
        choose_device("cuda:99")


def test_nvml_is_closed_after_an_error(two_gpus, monkeypatch):
    closed = []
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: closed.append(True))
    with contextlib.suppress(ZeroDivisionError), environment_gpu.nvml() as ready:
        assert ready
        raise ZeroDivisionError
    assert closed == [True]
