"""What CUDA and the GPU are: PyTorch's view and NVML's."""

import os
import warnings
from typing import Any

import torch

from helpers.environment.facts import Reader, first_line
from helpers.environment.nvml import (
    CLOCK_MEMORY,
    CLOCK_SM,
    NOT_INSTALLED,
    TEMPERATURE_GPU,
    find_gpu,
    nvml_problem,
    nvml_remedy,
    query,
)

READINGS = {
    "sm_clock_mhz": ("nvmlDeviceGetClockInfo", CLOCK_SM),
    "sm_clock_max_mhz": ("nvmlDeviceGetMaxClockInfo", CLOCK_SM),
    "memory_clock_mhz": ("nvmlDeviceGetClockInfo", CLOCK_MEMORY),
    "memory_clock_max_mhz": ("nvmlDeviceGetMaxClockInfo", CLOCK_MEMORY),
    "power_limit_w": ("nvmlDeviceGetEnforcedPowerLimit",),
    "temperature_c": ("nvmlDeviceGetTemperature", TEMPERATURE_GPU),
    "ecc": ("nvmlDeviceGetEccMode",),
    "persistence_mode": ("nvmlDeviceGetPersistenceMode",),
}

# Oldest Linux driver on which anything built for a CUDA major version runs. Sources: NVIDIA's "CUDA
# Compatibility" guide, minor version compatibility, and the CUDA Toolkit release notes.
MINIMUM_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
# What torch says where there simply is no GPU; anything else it says is a fault.
NO_FAULT = (
    "Found no NVIDIA driver",
    "No CUDA GPUs are available",
    "Torch not compiled with CUDA",
    "torch.cuda.is_available() is False",
)


def collect_cuda(device: torch.device | None = None) -> dict:
    """What PyTorch and NVML each say about CUDA, and why PyTorch cannot use it, if so.

    Parameters
    ----------
    device
        The GPU to try a kernel on. None tries none, so that a session on the CPU leaves no CUDA
        context on a GPU that someone else may be measuring.
    """
    read, nvml = Reader(), nvml_problem()
    encoded = None if nvml else read("driver_cuda", query, "nvmlSystemGetCudaDriverVersion_v2")
    problem = find_cuda_problem(device)
    cuda = {
        "usable": problem is None,
        "problem": problem,
        "torch_cuda": torch.version.cuda,
        "torch_hip": torch.version.hip,
        "torch_gpus": read("torch_gpus", torch.cuda.device_count) or 0,
        "cudnn": read("cudnn", _cudnn_version),
        "driver": None if nvml else read("driver", query, "nvmlSystemGetDriverVersion"),
        # NVML writes 13.1 as 13010
        "driver_cuda": f"{encoded // 1000}.{encoded % 1000 // 10}" if encoded else None,
        "nvml": nvml,
        "nvml_remedy": nvml_remedy(),
        "gpus": [] if nvml else _nvml_gpus(read),
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    needed = needed_driver(torch.version.cuda)
    cuda |= {"unreadable": read.failed}
    return cuda | {"needed_driver": needed, "diagnosis": diagnose_gpu(cuda)}


def diagnose_gpu(cuda: dict) -> str:
    """Name why PyTorch cannot use a GPU, from the facts of `collect_cuda` alone: in one word.

    "none": no GPU and nothing that should show one; "hidden": by CUDA_VISIBLE_DEVICES; "unusable":
    anything else.
    """
    if cuda["usable"]:
        return "usable"
    if cuda["torch_hip"]:
        return "rocm_build"
    if not cuda["gpus"] and not cuda["torch_gpus"]:
        no_fault = any(words in cuda["problem"] for words in NO_FAULT)
        return "none" if no_fault and not driver_fails(cuda) else "broken"
    if cuda["torch_cuda"] is None:
        return "cpu_build"
    needed = needed_driver(cuda["torch_cuda"])
    if needed and cuda["driver"] and _version(cuda["driver"]) < _version(needed):
        return "old_driver"
    if cuda["visible_devices"] is not None and not cuda["torch_gpus"]:
        return "hidden"
    return "unusable"


def driver_fails(cuda: dict) -> bool:
    """NVML is there and fails: not loaded, of another version than its library, …"""
    said = cuda["nvml"] or ""
    return said.startswith("NVMLError") and not said.startswith(NOT_INSTALLED)


def needed_driver(torch_cuda: str | None) -> str | None:
    """Return the oldest driver for the CUDA version of this PyTorch ("13.0"), if it is known."""
    return MINIMUM_DRIVER.get(int(torch_cuda.split(".")[0])) if torch_cuda else None


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _cudnn_version() -> str | None:
    encoded = torch.backends.cudnn.version()  # 91900 is 9.19.0; before cuDNN 9, 8902 was 8.9.2
    if encoded is None:
        return None
    major = 10_000 if encoded >= 90_000 else 1_000
    return f"{encoded // major}.{encoded % major // 100}.{encoded % 100}"


def _nvml_gpus(read: Reader) -> list[dict]:
    gpus = []
    for index in range(read("gpu_count", query, "nvmlDeviceGetCount") or 0):
        handle = read("gpu_handle", query, "nvmlDeviceGetHandleByIndex", index)
        names = {"name": "nvmlDeviceGetName", "uuid": "nvmlDeviceGetUUID"}
        gpus.append({key: read(key, query, name, handle) for key, name in names.items()})
    return gpus


def find_cuda_problem(device: torch.device | None) -> str | None:
    """Say why PyTorch cannot use CUDA (on `device`, by running one kernel there), or return None.

    ``torch.cuda.is_available()`` alone is not enough: it is also True for a GPU whose architecture
    this build has no kernels for. Its warning is the reason; it is given once in a process, and
    initialising CUDA says the same each time.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if not torch.cuda.is_available():
                if not caught:
                    torch.cuda.init()
                told = [str(warning.message).splitlines()[0][:300] for warning in caught]
                return told[0] if told else "torch.cuda.is_available() is False"
            if device is None:
                return None
            count = torch.cuda.device_count()
            if device.index is not None and device.index >= count:
                seen = f"PyTorch sees {count} GPU(s), cuda:0 to cuda:{count - 1}"
                return f"there is no {device}: {seen}"
            answer = torch.arange(3, device=device).add(1).sum().item()
        except Exception as error:  # any CUDA error means that this GPU cannot be used
            return first_line(error)
    return None if answer == 6 else f"1 + 2 + 3 gave {answer} on {device}"


def collect_gpu(device: torch.device, read: Reader | None = None) -> dict | None:
    """Describe the GPU that `device` names; None on the CPU. Clocks in MHz, power in W."""
    if device.type != "cuda":
        return None
    read, seen = read or Reader(), torch.cuda.get_device_properties(device)
    handle, scope = read("nvml_handle", find_gpu, device) or (None, None)

    def nvml(key: str, name: str, *args: int) -> Any:
        return None if handle is None else read(key, query, name, handle, *args)

    found = {key: nvml(key, name, *args) for key, (name, *args) in READINGS.items()}
    power, ecc, kept = found["power_limit_w"], found["ecc"], found["persistence_mode"]
    return {
        "name": seen.name,
        "uuid": read("uuid", lambda: f"GPU-{seen.uuid}"),
        "compute_capability": f"{seen.major}.{seen.minor}",
        "memory_gib": round(seen.total_memory / 2**30, 1),
        "multiprocessors": seen.multi_processor_count,
        "nvml_reads": scope,
        **found,
        "power_limit_w": None if power is None else power / 1000,
        "ecc": None if ecc is None else bool(ecc[0]),  # (current, after the next reboot)
        "persistence_mode": None if kept is None else bool(kept),
    }
