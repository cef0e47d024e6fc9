"""Which device is chosen, and what is said of a GPU that cannot be used: no GPU is needed here."""

import warnings

import nvml_fake
import pynvml
import pytest
import torch

from helpers.display.machine import check_environment, explain_gpu
from helpers.environment import device as environment_device
from helpers.environment import gpu as environment_gpu
from helpers.environment.device import DeviceError, choose_device
from helpers.environment.gpu import (
    collect_cuda,
    collect_gpu,
    diagnose_gpu,
    find_cuda_problem,
    needed_driver,
)

H100 = {"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1"}
CPU = torch.device("cpu")


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
    needed = needed_driver(cuda["torch_cuda"])
    return cuda | {"needed_driver": needed, "diagnosis": diagnose_gpu(cuda)}


SILENT = "torch.cuda.is_available() is False"
NO_DRIVER = "RuntimeError: Found no NVIDIA driver on your system. Please check that …"
ABSENT = "NVMLError_LibraryNotFound: NVML Shared Library Not Found"
MISMATCH = "NVMLError_LibRmVersionMismatch: RM has detected an NVML/RM version mismatch."
BROKEN = {"usable": False, "problem": SILENT, "torch_gpus": 0}
NOTHING = {**BROKEN, "gpus": [], "driver": None, "driver_cuda": None}
NO_GPU = facts(**NOTHING, nvml=ABSENT)
OLD_DRIVER = facts(**BROKEN, driver="535.183.01", driver_cuda="12.2")
DRIVER_FAILS = facts(**NOTHING, nvml=MISMATCH)
DIAGNOSES = [
    ("usable", facts()),
    ("usable", facts(gpus=[], driver=None, nvml=ABSENT)),  # NVML hidden, torch works
    ("usable", facts(torch_cuda=None, torch_hip="6.4")),
    ("none", NO_GPU),
    ("none", facts(**NOTHING)),  # a driver, and no GPU in the machine
    ("none", facts(**NOTHING | {"problem": NO_DRIVER}, nvml=ABSENT)),
    ("none", facts(**NOTHING, nvml="ModuleNotFoundError: No module named 'pynvml'")),
    ("broken", DRIVER_FAILS),
    ("broken", facts(**NOTHING, nvml=MISMATCH, torch_cuda=None)),
    ("broken", facts(**NOTHING, nvml="NVMLError_DriverNotLoaded: Driver Not Loaded")),
    ("broken", facts(**NOTHING, nvml="NVMLError_Unknown: Unknown Error")),
    ("broken", facts(**NOTHING | {"problem": "CUDA initialization: … Error 803"}, nvml=ABSENT)),
    ("rocm_build", facts(**BROKEN, torch_cuda=None, torch_hip="6.4")),
    ("rocm_build", facts(**NOTHING, nvml=ABSENT, torch_cuda=None, torch_hip="6.4")),
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
def test_diagnosis_and_its_sentence(expected, cuda):
    assert cuda["diagnosis"] == expected
    assert not {"None", "{"} & set(explain_gpu(cuda).split())
    assert MISMATCH in explain_gpu(cuda) or cuda["nvml"] != MISMATCH
    assert "6.4" in explain_gpu(cuda) or expected != "rocm_build"


CHECKED = [
    (facts(), None, [True]),
    (NO_GPU, None, [True]),
    (DRIVER_FAILS, None, [False, False]),
    (OLD_DRIVER, None, [False]),
    (facts(gpus=[], driver=None, nvml=ABSENT), None, [True, False]),
    (facts(nvml_remedy="`pip uninstall pynvml`"), None, [True, False]),
    (facts(), "MIG instance", [True, True]),
    (facts(), "parent GPU of a MIG instance", [True, True]),
]


@pytest.mark.parametrize(("cuda", "scope", "ok"), CHECKED)
def test_checks_of_the_gpu_and_of_nvml(cuda, scope, ok):
    """The driver's and torch's own words, and not OK where something that should work does not."""
    record = {
        "cuda": cuda,
        "gpu": {"nvml_reads": scope},
        "cpu": {"torch_threads": 2, "quota_cpus": None},
        "software": {"torch": "2.14.1", "optimize": 0},
        "compile": {"usable": True, "reason": ""},
        "other_code": None,
    }
    checks = [check for check in check_environment(record) if check.name in ("GPU", "NVML")]
    assert [check.ok for check in checks] == ok
    assert all(MISMATCH in check.detail for check in checks if cuda is DRIVER_FAILS)
    assert all("MIG" in check.detail for check in checks if scope and check.name == "NVML")
    built = {check.name: check.detail for check in check_environment(record)}["PyTorch ≥ 2.0"]
    assert "CUDA 13.0" in built


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


@pytest.mark.parametrize("cuda", [NO_GPU, OLD_DRIVER, DRIVER_FAILS])
def test_auto_without_usable_gpu_takes_the_cpu_and_says_why(seen, cuda):
    seen(cuda)
    choice = choose_device("auto")
    assert choice.device == CPU
    assert explain_gpu(cuda) in choice.reason


@pytest.mark.parametrize("requested", ["cuda", "cuda:3"])
@pytest.mark.parametrize("cuda", [NO_GPU, OLD_DRIVER, DRIVER_FAILS])
def test_explicit_gpu_that_cannot_be_had_is_an_error(seen, requested, cuda):
    seen(cuda)
    with pytest.raises(DeviceError) as caught:
        choose_device(requested)
    assert f"device='{requested}' cannot be had" in str(caught.value)
    for fact in (cuda["problem"], cuda["nvml"], cuda["driver"]):
        assert fact is None or fact in str(caught.value)


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


def test_torchs_words_are_found_again_on_a_second_call(monkeypatch):
    """torch warns once in a process; the cell may be run twice."""

    def no_device():
        raise RuntimeError("Unexpected error from cudaGetDeviceCount(). Error 803: mismatch")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", no_device)
    assert "Error 803" in find_cuda_problem(None)
    assert collect_cuda()["diagnosis"] == "broken"


def gpu_of(monkeypatch, **properties) -> dict:
    answers = nvml_fake.install(monkeypatch, **properties)
    answers["nvmlDeviceGetPersistenceMode"] = pynvml.NVMLError_NotSupported
    return collect_gpu(torch.device("cuda", 0))


def test_driver_and_gpus_as_nvml_sees_them(monkeypatch):
    nvml_fake.install(monkeypatch)
    cuda = collect_cuda()
    assert (cuda["driver"], cuda["driver_cuda"]) == ("580.95.05", "13.1")
    assert [gpu["uuid"] for gpu in cuda["gpus"]] == ["GPU-a", "GPU-b"]


def test_gpu_is_matched_by_uuid_not_by_index(monkeypatch):
    # CUDA_VISIBLE_DEVICES=1 makes NVML's second GPU torch's cuda:0
    gpu = gpu_of(monkeypatch)
    assert gpu["uuid"] == "GPU-b"
    assert gpu["sm_clock_mhz"] == 1980
    assert (gpu["power_limit_w"], gpu["ecc"], gpu["memory_gib"]) == (700.0, True, 80.0)
    assert gpu["compute_capability"] == "9.0"
    assert gpu["persistence_mode"] is None  # NVML refuses


def test_gpu_that_nvml_knows_by_its_bus_alone(monkeypatch):
    assert gpu_of(monkeypatch, uuid="z")["sm_clock_mhz"] == 1980


def test_gpu_unknown_to_nvml_gets_no_other_gpus_readings(monkeypatch):
    gpu = gpu_of(monkeypatch, uuid="z", pci_bus_id=0x99)
    assert gpu["name"] == "NVIDIA H100"
    assert gpu["sm_clock_mhz"] is None


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
    gpu = collect_gpu(torch.device("cuda", 0))
    assert gpu["nvml_reads"] == expected
    assert gpu["sm_clock_mhz"] == 1980


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
