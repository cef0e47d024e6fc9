"""NVIDIA's management library, through nvidia-ml-py: opened here and nowhere else."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from helpers.environment.facts import Reader, attempt, first_line

try:
    import pynvml

    if hasattr(pynvml, "__path__"):  # the old package of that name hides nvidia-ml-py's file
        raise ImportError("an old `pynvml` package")
except Exception as error:  # or absent, or so old that this Python cannot run it
    REMEDY = "`pip uninstall pynvml`, then `pip install nvidia-ml-py`"
    pynvml, _IMPORT = None, f"{first_line(error)}: {REMEDY}"

# Values of NVML's C interface
CLOCK_SM, CLOCK_MEMORY, TEMPERATURE_GPU, POLICY_POWER, POLICY_THERMAL = 1, 2, 0, 0, 1
NO_DRIVER = "LibraryNotFound"  # none at all: no fault of this machine


def query(name: str, *args: Any) -> Any:
    """Call a function of NVML; raises whatever it, or the lack of it, raises."""
    return getattr(pynvml, name)(*args)


def asks(name: str, *args: int, make: Callable = lambda answer: answer) -> Callable:
    """Return what asks NVML about a handle; `make` converts the answer."""
    return lambda handle: make(query(name, handle, *args))


sm_clock_mhz = partial(attempt, asks("nvmlDeviceGetClockInfo", CLOCK_SM))  # of a handle, now
performance_state = partial(attempt, asks("nvmlDeviceGetPerformanceState"))  # 0 is the fastest
FACTS = {  # of a machine's record
    "sm_clock_mhz": asks("nvmlDeviceGetClockInfo", CLOCK_SM),
    "sm_clock_max_mhz": asks("nvmlDeviceGetMaxClockInfo", CLOCK_SM),
    "memory_clock_mhz": asks("nvmlDeviceGetClockInfo", CLOCK_MEMORY),
    "memory_clock_max_mhz": asks("nvmlDeviceGetMaxClockInfo", CLOCK_MEMORY),
    "power_limit_w": asks("nvmlDeviceGetEnforcedPowerLimit", make=lambda mw: mw / 1000),
    "temperature_c": asks("nvmlDeviceGetTemperature", TEMPERATURE_GPU),
    "ecc": asks("nvmlDeviceGetEccMode", make=lambda mode: bool(mode[0])),  # (now, next reboot)
    "persistence_mode": asks("nvmlDeviceGetPersistenceMode", make=bool),
}


def nvml_problem() -> str | None:
    """Open NVML, which then stays open; None, or why it cannot be read, in its own words."""
    try:
        return _IMPORT if pynvml is None else pynvml.nvmlInit()
    except Exception as error:
        return first_line(error)


def collect_driver(read: Reader) -> dict[str, Any]:
    """What NVML says of itself, the driver and its GPUs."""
    if problem := nvml_problem():
        return {"nvml": problem, "driver": None, "driver_cuda": None, "gpus": []}
    count = read("gpu_count", query, "nvmlDeviceGetCount") or 0
    gpus = [read("gpu_handle", query, "nvmlDeviceGetHandleByIndex", at) for at in range(count)]
    names = {"name": asks("nvmlDeviceGetName"), "uuid": asks("nvmlDeviceGetUUID")}
    version = read("driver_cuda", query, "nvmlSystemGetCudaDriverVersion_v2")  # 13.1 is 13010
    return {
        "nvml": None,
        "driver": read("driver", query, "nvmlSystemGetDriverVersion"),
        "driver_cuda": version and f"{version // 1000}.{version % 1000 // 10}",
        "gpus": [{key: read(key, get, gpu) for key, get in names.items()} for gpu in gpus],
    }


def collect_gpu(device: torch.device, read: Reader) -> dict[str, Any]:
    """Describe a GPU; clocks in MHz, power in W."""
    seen, (handle, scope) = torch.cuda.get_device_properties(device), find_gpu(device)
    return {
        "name": seen.name,
        "uuid": read("uuid", lambda: f"GPU-{seen.uuid}"),
        "compute_capability": f"{seen.major}.{seen.minor}",
        "memory_gib": round(seen.total_memory / 2**30, 1),
        "nvml_reads": scope,
        **{key: handle and read(key, get, handle) for key, get in FACTS.items()},
    }


def find_gpu(device: torch.device) -> tuple[Any, str | None]:
    """NVML's handle of torch's GPU or None, and "mig" or "mig_parent" where it is not a whole one.

    By UUID, else by PCI bus; never by index, which CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER
    change for torch alone. A MIG instance that NVML does not find is read as its parent GPU.
    """
    if device.type != "cuda" or nvml_problem():
        return None, None
    seen = attempt(torch.cuda.get_device_properties, device)
    uuid, visible = getattr(seen, "uuid", None), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    # CUDA sees one MIG instance at most
    uuids = [visible.split(",")[0]] if visible.startswith("MIG-") else []
    for name in (*uuids, f"GPU-{uuid}", f"MIG-{uuid}"):
        if handle := attempt(query, "nvmlDeviceGetHandleByUUID", name):
            break
    else:
        name, bus = "", "{0.pci_domain_id:08x}:{0.pci_bus_id:02x}:{0.pci_device_id:02x}.0"
        handle = attempt(asks("nvmlDeviceGetHandleByPciBusId"), attempt(bus.format, seen))
    if name.startswith("MIG-"):
        return handle, "mig"
    mode = attempt(query, "nvmlDeviceGetMigMode", handle)  # (now, after the next reboot)
    return handle, "mig_parent" if mode and mode[0] else None
