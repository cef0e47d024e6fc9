"""NVIDIA's management library, through nvidia-ml-py: opened here and nowhere else."""

from functools import partial
from typing import Any

import torch

from helpers.environment.facts import Reader, attempt, first_line

NO_DRIVER = "LibraryNotFound"  # none at all: no fault of this machine
SM, MEMORY = 1, 2  # NVML's clocks


def query(name: str, *args: Any) -> Any:
    """Call a function of NVML; raises whatever it, or the lack of it, raises."""
    import pynvml  # of nvidia-ml-py; here, so that its absence is a reading that fails

    return getattr(pynvml, name)(*args)


FACTS = {  # of a GPU, by its handle
    "sm_clock_mhz": lambda gpu: query("nvmlDeviceGetClockInfo", gpu, SM),
    "sm_clock_max_mhz": lambda gpu: query("nvmlDeviceGetMaxClockInfo", gpu, SM),
    "memory_clock_mhz": lambda gpu: query("nvmlDeviceGetClockInfo", gpu, MEMORY),
    "memory_clock_max_mhz": lambda gpu: query("nvmlDeviceGetMaxClockInfo", gpu, MEMORY),
    "power_limit_w": lambda gpu: query("nvmlDeviceGetEnforcedPowerLimit", gpu) / 1000,
    "temperature_c": lambda gpu: query("nvmlDeviceGetTemperature", gpu, 0),
}
sm_clock_mhz = partial(attempt, FACTS["sm_clock_mhz"])  # now, or None
performance_state = partial(attempt, lambda gpu: query("nvmlDeviceGetPerformanceState", gpu))


def nvml_problem() -> str | None:
    """Open NVML, which then stays open; None, or why it cannot be read, in its own words."""
    try:
        return query("nvmlInit")
    except Exception as error:
        return first_line(error)


def collect_driver(read: Reader) -> dict[str, Any]:
    """What NVML says of itself, the driver and its GPUs."""
    if problem := nvml_problem():
        return {"nvml": problem, "driver": None, "driver_cuda": None, "gpus": []}
    count = read("gpu_count", query, "nvmlDeviceGetCount") or 0
    gpus = [read("gpu", query, "nvmlDeviceGetHandleByIndex", at) for at in range(count)]
    uuids = [read("gpu_uuid", query, "nvmlDeviceGetUUID", gpu) for gpu in gpus]
    version = read("driver_cuda", query, "nvmlSystemGetCudaDriverVersion_v2")
    return {
        "nvml": None,
        "driver": read("driver", query, "nvmlSystemGetDriverVersion"),
        "driver_cuda": version and f"{version // 1000}.{version % 1000 // 10}",  # 13.1 is 13010
        "gpus": uuids,
    }


def collect_gpu(device: torch.device, read: Reader) -> dict[str, Any]:
    """Describe a GPU; clocks in MHz, power in W."""
    seen, (handle, mig) = torch.cuda.get_device_properties(device), find_gpu(device)
    return {
        "name": seen.name,
        "uuid": read("uuid", lambda: f"GPU-{seen.uuid}"),
        "compute_capability": f"{seen.major}.{seen.minor}",
        "memory_gib": round(seen.total_memory / 2**30, 1),
        "mig": mig,
        **{key: handle and read(key, get, handle) for key, get in FACTS.items()},
    }


def find_gpu(device: torch.device) -> tuple[Any, bool]:
    """NVML's handle of torch's GPU, or None; and is it, or is it part of, a GPU in MIG mode?

    By UUID, else by PCI bus; never by index, which CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER
    change for torch alone. A MIG instance that NVML does not find is read as its parent GPU.
    """
    if device.type != "cuda" or nvml_problem():
        return None, False
    seen = attempt(torch.cuda.get_device_properties, device)
    for kind in ("MIG", "GPU"):
        uuid = f"{kind}-{getattr(seen, 'uuid', None)}"
        if handle := attempt(query, "nvmlDeviceGetHandleByUUID", uuid):
            break
    else:
        bus = "{0.pci_domain_id:08x}:{0.pci_bus_id:02x}:{0.pci_device_id:02x}.0"
        handle = attempt(query, "nvmlDeviceGetHandleByPciBusId", attempt(bus.format, seen))
    mode = attempt(query, "nvmlDeviceGetMigMode", handle) or [0]  # (now, after a reboot)
    return handle, kind == "MIG" or bool(mode[0])
