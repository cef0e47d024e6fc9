"""What CUDA and the GPU are: PyTorch's view and NVML's, matched by the GPU's UUID.

NVML is NVIDIA's management library, read through nvidia-ml-py.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pynvml
import torch

from helpers.environment.facts import attempt, first_line


def collect_cuda(device: torch.device | None = None) -> dict:
    """What PyTorch and NVML each say about CUDA, and why PyTorch cannot use it, if so.

    Parameters
    ----------
    device
        The GPU to try a kernel on. None tries none, so that a session on the CPU leaves no CUDA
        context on a GPU that someone else may be measuring.
    """
    with nvml() as ready:
        driver = attempt(pynvml.nvmlSystemGetDriverVersion) if ready else None
        encoded = attempt(pynvml.nvmlSystemGetCudaDriverVersion_v2) if ready else None
        gpus = _nvml_gpus() if ready else []
    problem = find_cuda_problem(device)
    return {
        "usable": problem is None,
        "problem": problem,
        "torch_cuda": torch.version.cuda,
        "torch_gpus": torch.cuda.device_count(),
        "cudnn": attempt(_cudnn_version),
        "driver": driver,
        # NVML writes 13.1 as 13010
        "driver_cuda": f"{encoded // 1000}.{encoded % 1000 // 10}" if encoded else None,
        "gpus": gpus,
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def _cudnn_version() -> str | None:
    encoded = torch.backends.cudnn.version()  # 91900 is 9.19.0; before cuDNN 9, 8902 was 8.9.2
    if encoded is None:
        return None
    major = 10_000 if encoded >= 90_000 else 1_000
    return f"{encoded // major}.{encoded % major // 100}.{encoded % 100}"


def find_cuda_problem(device: torch.device | None) -> str | None:
    """Say why PyTorch cannot use CUDA (on `device`, by running one kernel there), or return None.

    ``torch.cuda.is_available()`` alone is not enough: it is also True for a GPU whose architecture
    this build has no kernels for. Its warning (driver too old) is the reason, so it is kept.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if not torch.cuda.is_available():
            told = [str(warning.message).splitlines()[0][:300] for warning in caught]
            return told[0] if told else "torch.cuda.is_available() is False"
        count = torch.cuda.device_count()
        if device is None:
            return None
        if device.index is not None and device.index >= count:
            return f"there is no {device}: PyTorch sees {count} GPU(s), cuda:0 to cuda:{count - 1}"
        try:
            answer = torch.arange(3, device=device).add(1).sum().item()
        except Exception as error:  # any CUDA error means that this GPU cannot be used
            return first_line(error)
    return None if answer == 6 else f"1 + 2 + 3 gave {answer} on {device}"


def collect_gpu(device: torch.device) -> dict | None:
    """Describe the GPU that `device` names; None on the CPU. Clocks in MHz, power in W."""
    if device.type != "cuda":
        return None
    seen = torch.cuda.get_device_properties(device)
    gpu = {
        "name": seen.name,
        "uuid": attempt(lambda: f"GPU-{seen.uuid}"),
        "compute_capability": f"{seen.major}.{seen.minor}",
        "memory_gib": round(seen.total_memory / 2**30, 1),
        "multiprocessors": seen.multi_processor_count,
    }
    with nvml() as ready:
        handle = _nvml_handle(seen) if ready else None
        return gpu | _nvml_readings(handle)


@contextmanager
def nvml() -> Iterator[bool]:
    """Open NVML and tell whether it is there."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no NVIDIA driver
        yield False
        return
    try:
        yield True
    finally:
        attempt(pynvml.nvmlShutdown)


def _nvml_gpus() -> list[dict]:
    handles = [
        attempt(pynvml.nvmlDeviceGetHandleByIndex, index)
        for index in range(attempt(pynvml.nvmlDeviceGetCount) or 0)
    ]
    return [
        {
            "name": attempt(pynvml.nvmlDeviceGetName, handle),
            "uuid": attempt(pynvml.nvmlDeviceGetUUID, handle),
        }
        for handle in handles
    ]


def _nvml_handle(properties: Any) -> Any:
    """Find torch's GPU in NVML by UUID, else by PCI bus.

    Never by index: CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER renumber torch's, not NVML's.
    """

    def by_uuid() -> Any:
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")

    def by_bus() -> Any:
        bus = (properties.pci_domain_id, properties.pci_bus_id, properties.pci_device_id)
        return pynvml.nvmlDeviceGetHandleByPciBusId("{:08x}:{:02x}:{:02x}.0".format(*bus))

    return attempt(by_uuid) or attempt(by_bus)


def _nvml_readings(handle: Any) -> dict:
    def read(name: str, *args: int) -> Any:
        return attempt(lambda: getattr(pynvml, name)(handle, *args)) if handle else None

    power = read("nvmlDeviceGetEnforcedPowerLimit")
    ecc = read("nvmlDeviceGetEccMode")  # (current, after the next reboot)
    return {
        "sm_clock_mhz": read("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),
        "sm_clock_max_mhz": read("nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_SM),
        "memory_clock_mhz": read("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_MEM),
        "memory_clock_max_mhz": read("nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_MEM),
        "power_limit_w": None if power is None else power / 1000,
        "temperature_c": read("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
        "ecc": None if ecc is None else bool(ecc[0]),
        "persistence_mode": _flag(read("nvmlDeviceGetPersistenceMode")),
    }


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)
