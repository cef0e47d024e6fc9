"""NVIDIA's management library, through nvidia-ml-py: opened here and nowhere else."""

import os
from typing import Any

import torch

from helpers.environment.facts import Reader, attempt, first_line

try:
    import pynvml
except Exception as error:  # absent, or an old package of that name that this Python cannot run
    pynvml, _IMPORT = None, first_line(error)

# Values of NVML's C interface, which never change; an old `pynvml` lacks some of their names.
CLOCK_SM, CLOCK_MEMORY, TEMPERATURE_GPU, POLICY_POWER, POLICY_THERMAL = 1, 2, 0, 0, 1
NO_DRIVER = "LibraryNotFound"  # none at all: no fault of this machine
MIG_INSTANCE, MIG_PARENT = "MIG instance", "parent GPU of a MIG instance"
REMEDY = "`pip uninstall pynvml`, then `pip install nvidia-ml-py`"
# Of a record: what to make of the answer, the function, its arguments after the handle.
FACTS = {
    "sm_clock_mhz": (int, "nvmlDeviceGetClockInfo", CLOCK_SM),
    "sm_clock_max_mhz": (int, "nvmlDeviceGetMaxClockInfo", CLOCK_SM),
    "memory_clock_mhz": (int, "nvmlDeviceGetClockInfo", CLOCK_MEMORY),
    "memory_clock_max_mhz": (int, "nvmlDeviceGetMaxClockInfo", CLOCK_MEMORY),
    "power_limit_w": (lambda milliwatts: milliwatts / 1000, "nvmlDeviceGetEnforcedPowerLimit"),
    "temperature_c": (int, "nvmlDeviceGetTemperature", TEMPERATURE_GPU),
    "ecc": (lambda mode: bool(mode[0]), "nvmlDeviceGetEccMode"),  # (now, after the next reboot)
    "persistence_mode": (bool, "nvmlDeviceGetPersistenceMode"),
}


def query(name: str, *args: Any) -> Any:
    """Call a function of NVML; raises whatever it, or the lack of it, raises."""
    value = getattr(pynvml, name)(*args)
    return value.decode() if isinstance(value, bytes) else value  # an old `pynvml`


def query_all(table: dict[str, tuple], handle: Any, read: Reader) -> dict[str, Any]:
    """The answers to a table like FACTS; all None without a handle."""
    return {
        key: None if handle is None else read(key, lambda: make(query(name, handle, *args)))
        for key, (make, name, *args) in table.items()
    }


def nvml_problem() -> str | None:
    """Open NVML, which then stays open; None, or why it cannot be read, in its own words."""
    try:
        return _IMPORT if pynvml is None else pynvml.nvmlInit()
    except Exception as error:
        return first_line(error)


def collect_driver(read: Reader | None) -> dict[str, Any]:
    """What NVML says of the driver and its GPUs, and how to mend an old `pynvml`.

    Without `read`, NVML cannot be read. An old package of that name is a folder, which hides
    nvidia-ml-py's file.
    """
    ask = read or (lambda *_: None)
    version = ask("driver_cuda", query, "nvmlSystemGetCudaDriverVersion_v2")  # 13.1 is 13010
    gpus = []
    for index in range(ask("gpu_count", query, "nvmlDeviceGetCount") or 0):
        handle = ask("gpu_handle", query, "nvmlDeviceGetHandleByIndex", index)
        names = {"name": "nvmlDeviceGetName", "uuid": "nvmlDeviceGetUUID"}
        gpus.append({key: ask(key, query, name, handle) for key, name in names.items()})
    return {
        "driver": ask("driver", query, "nvmlSystemGetDriverVersion"),
        "driver_cuda": version and f"{version // 1000}.{version % 1000 // 10}",
        "gpus": gpus,
        "nvml_remedy": REMEDY if pynvml is None or hasattr(pynvml, "__path__") else None,
    }


def collect_gpu(device: torch.device, read: Reader) -> dict[str, Any]:
    """Describe a GPU; clocks in MHz, power in W."""
    seen = torch.cuda.get_device_properties(device)
    handle, scope = read("nvml_handle", find_gpu, device) or (None, None)
    return {
        "name": seen.name,
        "uuid": read("uuid", lambda: f"GPU-{seen.uuid}"),
        "compute_capability": f"{seen.major}.{seen.minor}",
        "memory_gib": round(seen.total_memory / 2**30, 1),
        "nvml_reads": scope,
        **query_all(FACTS, handle, read),
    }


def find_gpu(device: torch.device) -> tuple[Any, str | None]:
    """NVML's handle of torch's GPU, and what it stands for where that is not the whole of it.

    By UUID, else by PCI bus; never by index, which CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER
    change for torch alone. A MIG instance that NVML does not find is read as its parent GPU.
    """
    if device.type != "cuda" or nvml_problem():
        return None, None
    seen = attempt(torch.cuda.get_device_properties, device)
    visible, uuid = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0], seen and seen.uuid
    uuids = [visible] if visible.startswith("MIG-") else []  # CUDA sees one MIG instance at most
    for name in (*uuids, f"GPU-{uuid}", f"MIG-{uuid}"):
        if handle := attempt(query, "nvmlDeviceGetHandleByUUID", name):
            break
    else:
        at = "{0.pci_domain_id:08x}:{0.pci_bus_id:02x}:{0.pci_device_id:02x}.0"
        name = "of the bus"
        handle = attempt(lambda: query("nvmlDeviceGetHandleByPciBusId", at.format(seen)))
    if name.startswith("MIG-"):
        return handle, MIG_INSTANCE
    mode = attempt(query, "nvmlDeviceGetMigMode", handle)  # (current, after the next reboot)
    return handle, MIG_PARENT if mode and mode[0] else None


def nvml_handle(device: torch.device) -> Any:
    """`find_gpu`'s handle; None on a CPU and where NVML cannot be read."""
    return attempt(lambda: find_gpu(device)[0])


def sm_clock_mhz(handle: Any) -> int | None:
    """The SM clock now, in MHz; None where it cannot be seen."""
    return attempt(query, "nvmlDeviceGetClockInfo", handle, CLOCK_SM)
