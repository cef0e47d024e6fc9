"""NVIDIA's management library, through nvidia-ml-py: opened here and nowhere else."""

import os
from typing import Any

import torch

from helpers.environment.facts import attempt, first_line

try:
    import pynvml
except Exception as error:  # absent, or an old package of that name that this Python cannot run
    pynvml, _IMPORT = None, first_line(error)

# Values of NVML's C interface, which never change; an old `pynvml` lacks some of their names.
CLOCK_SM, CLOCK_MEMORY, TEMPERATURE_GPU = 1, 2, 0
POLICY_POWER, POLICY_THERMAL = 0, 1
NO_DRIVER = "LibraryNotFound"  # none at all: no fault of this machine
MIG_INSTANCE, MIG_PARENT = "MIG instance", "parent GPU of a MIG instance"


def nvml_problem() -> str | None:
    """Open NVML, which then stays open; None, or why it cannot be read, in its own words."""
    if pynvml is None:
        return _IMPORT
    try:
        pynvml.nvmlInit()
    except Exception as error:
        return first_line(error)
    return None


def nvml_remedy() -> str | None:
    """What to type where `pynvml` is not nvidia-ml-py's module; None where it is."""
    # An old package of that name is a folder, which hides the file.
    right = pynvml is not None and not hasattr(pynvml, "__path__")
    return None if right else "`pip uninstall pynvml`, then `pip install nvidia-ml-py`"


def query(name: str, *args: Any) -> Any:
    """Call a function of NVML; raises whatever it, or the lack of it, raises."""
    value = getattr(pynvml, name)(*args)
    return value.decode() if isinstance(value, bytes) else value  # an old `pynvml`


def find_gpu(device: torch.device) -> tuple[Any, str | None]:
    """NVML's handle of torch's GPU, and what it stands for where that is not the whole of it.

    By UUID, else by PCI bus; never by index, which CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER
    change for torch alone. A MIG instance that NVML does not find is read as its parent GPU.
    """
    if device.type != "cuda" or nvml_problem():
        return None, None
    seen = attempt(torch.cuda.get_device_properties, device)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    uuids = [visible] if visible.startswith("MIG-") else []  # CUDA sees one MIG instance at most
    uuid = getattr(seen, "uuid", None)
    for name in (*uuids, f"GPU-{uuid}", f"MIG-{uuid}"):
        if handle := attempt(query, "nvmlDeviceGetHandleByUUID", name):
            break
    else:
        name, handle = "", attempt(_by_bus, seen)
    if name.startswith("MIG-"):
        return handle, MIG_INSTANCE
    mode = attempt(query, "nvmlDeviceGetMigMode", handle)  # (current, after the next reboot)
    return handle, MIG_PARENT if mode and mode[0] else None


def _by_bus(seen: Any) -> Any:
    bus = f"{seen.pci_domain_id:08x}:{seen.pci_bus_id:02x}:{seen.pci_device_id:02x}.0"
    return query("nvmlDeviceGetHandleByPciBusId", bus)


def nvml_handle(device: torch.device) -> Any:
    """`find_gpu`'s handle; None on a CPU and where NVML cannot be read."""
    return attempt(lambda: find_gpu(device)[0])


def sm_clock_mhz(handle: Any) -> int | None:
    """The SM clock now, in MHz; None where it cannot be seen."""
    return attempt(query, "nvmlDeviceGetClockInfo", handle, CLOCK_SM)
