"""What CUDA and the GPU are: PyTorch's view and NVML's."""

import os
import warnings
from typing import Any

import torch

from helpers.environment.facts import Reader, first_line
from helpers.environment.nvml import (
    CLOCK_MEMORY,
    CLOCK_SM,
    NO_DRIVER,
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
MINIMUM_DRIVER = {"11": "450.80.02", "12": "525.60.13", "13": "580.65.06"}
UNAVAILABLE = "torch.cuda.is_available() is False"
# What torch says where there simply is no GPU; anything else it says is a fault.
NO_GPU = ("Found no NVIDIA driver", "No CUDA GPUs are available", "Torch not compiled", UNAVAILABLE)


def collect_cuda(device: torch.device | None = None) -> dict:
    """What PyTorch and NVML each say about CUDA, and why PyTorch cannot use it, if so.

    Parameters
    ----------
    device
        The GPU to try a kernel on. None tries none, so that a session on the CPU leaves no CUDA
        context on a GPU that someone else may be measuring.
    """
    read, nvml, problem = Reader(), nvml_problem(), find_cuda_problem(device)
    encoded = None if nvml else read("driver_cuda", query, "nvmlSystemGetCudaDriverVersion_v2")
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
        "unreadable": read.failed,
        "needed_driver": MINIMUM_DRIVER.get((torch.version.cuda or "").split(".")[0]),
    }
    return cuda | {"diagnosis": diagnose(cuda)}


def diagnose(cuda: dict) -> str:
    """Name why PyTorch cannot use a GPU, from the facts of `collect_cuda` alone: in one word.

    "none": no GPU and nothing that should show one; "broken": the driver is there and fails;
    "hidden": by CUDA_VISIBLE_DEVICES; "unusable": anything else.
    """
    if cuda["usable"]:
        return "usable"
    if cuda["torch_hip"]:
        return "rocm_build"
    if not cuda["gpus"] and not cuda["torch_gpus"]:
        no_fault = any(words in cuda["problem"] for words in NO_GPU)
        nvml = cuda["nvml"] or ""
        driver_fails = "NVMLError" in nvml and NO_DRIVER not in nvml
        return "none" if no_fault and not driver_fails else "broken"
    if cuda["torch_cuda"] is None:
        return "cpu_build"
    if _version(cuda["driver"] or "999") < _version(cuda["needed_driver"] or "0"):
        return "old_driver"
    return (
        "hidden" if cuda["visible_devices"] is not None and not cuda["torch_gpus"] else "unusable"
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _cudnn_version() -> str | None:
    encoded = torch.backends.cudnn.version()  # 91900 is 9.19.0
    return encoded and f"{encoded // 10_000}.{encoded % 10_000 // 100}.{encoded % 100}"


def _nvml_gpus(read: Reader) -> list[dict]:
    gpus, names = [], {"name": "nvmlDeviceGetName", "uuid": "nvmlDeviceGetUUID"}
    for index in range(read("gpu_count", query, "nvmlDeviceGetCount") or 0):
        handle = read("gpu_handle", query, "nvmlDeviceGetHandleByIndex", index)
        gpus.append({key: read(key, query, name, handle) for key, name in names.items()})
    return gpus


def find_cuda_problem(device: torch.device | None) -> str | None:
    """Say why PyTorch cannot use CUDA (on `device`, by running one kernel there), or return None.

    ``torch.cuda.is_available()`` is also True for a GPU whose architecture this build has no
    kernels for. Its warning, given once in a process, is the reason; `init` says it each time.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if torch.cuda.is_available():
                if device is not None:
                    torch.arange(3, device=device).sum().item()
                return None
            if not caught:
                torch.cuda.init()
        except Exception as error:  # any CUDA error means that this GPU cannot be used
            return first_line(error)
    return str(caught[0].message).splitlines()[0][:300] if caught else UNAVAILABLE


def collect_gpu(device: torch.device, read: Reader) -> dict | None:
    """Describe the GPU that `device` names; None on the CPU. Clocks in MHz, power in W."""
    if device.type != "cuda":
        return None
    seen = torch.cuda.get_device_properties(device)
    handle, scope = read("nvml_handle", find_gpu, device) or (None, None)

    def nvml(key: str, name: str, *args: int) -> Any:
        return None if handle is None else read(key, query, name, handle, *args)

    found = {key: nvml(key, *reading) for key, reading in READINGS.items()}
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
