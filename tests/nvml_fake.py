"""An NVML with one GPU, `GPU-b` at PCI bus 41, whose answers a test changes."""

from types import SimpleNamespace

import pynvml
import torch

ME, OTHER = 100, 200


def install(monkeypatch, **properties) -> dict:
    """Patch pynvml and torch's view of cuda:0; returns the answers, where an error is raised."""
    seen = {"name": "NVIDIA H100", "major": 9, "minor": 0, "total_memory": 80 * 2**30}
    seen |= {"multi_processor_count": 132, "uuid": "b"}
    seen |= {"pci_domain_id": 0, "pci_bus_id": 0x41, "pci_device_id": 0}
    gpu = SimpleNamespace(**seen | properties)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    answers = {
        "nvmlInit": None,
        "nvmlSystemGetDriverVersion": "580.95.05",
        "nvmlSystemGetCudaDriverVersion_v2": 13010,
        "nvmlDeviceGetCount": 2,
        "nvmlDeviceGetHandleByIndex": lambda index: ("GPU-a", "GPU-b")[index],
        "nvmlDeviceGetHandleByUUID": lambda uuid: {"GPU-a": "GPU-a", "GPU-b": "GPU-b"}[uuid],
        "nvmlDeviceGetHandleByPciBusId": lambda bus: {"00000000:41:00.0": "GPU-b"}[bus],
        "nvmlDeviceGetUUID": lambda handle: handle,
        "nvmlDeviceGetMigMode": [0, 0],
        "nvmlDeviceGetClockInfo": lambda handle, kind: {"GPU-a": 345}.get(handle, 1980),
        "nvmlDeviceGetMaxClockInfo": 1980,
        "nvmlDeviceGetEnforcedPowerLimit": 700_000,
        "nvmlDeviceGetTemperature": 54,
        "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=ME)],
        "nvmlDeviceGetGraphicsRunningProcesses": [],
        "nvmlDeviceGetCurrentClocksEventReasons": 4,
        "nvmlDeviceGetViolationStatus": SimpleNamespace(violationTime=500_000_000),
        "nvmlDeviceGetProcessUtilization": [],
    }

    def fake(name):
        def answer(*arguments):
            value = answers[name]
            if isinstance(value, type) and issubclass(value, Exception):
                raise value() if issubclass(value, pynvml.NVMLError) else value("injected")
            return value(*arguments) if callable(value) else value

        return answer

    for name in answers:
        monkeypatch.setattr(pynvml, name, fake(name))
    return answers


def sample(pid: int, share: int, stamp: int) -> SimpleNamespace:
    """One entry of NVML's per-process utilisation."""
    return SimpleNamespace(pid=pid, smUtil=share, timeStamp=stamp)
