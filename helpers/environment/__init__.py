"""Step 1: what machine this is, and whether it can do the day's work."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from helpers.environment.compile import CompileCheck, check_compile_once
from helpers.environment.facts import Check, Reader, collect_facts, cost
from helpers.environment.gpu import collect_cuda, collect_gpu
from helpers.environment.nvml import MIG_INSTANCE, NO_DRIVER

__all__ = ["Check", "DeviceError", "Machine", "cost", "look"]

# Why this device
ASKED = "asked"
AUTOMATIC = "automatic"
NO_USABLE_GPU = "no_usable_gpu"  # facts["cuda"]["diagnosis"] says why


class DeviceError(RuntimeError):
    """The device that was asked for cannot be had."""


@dataclass(frozen=True)
class Machine:
    """The device that measures and why (a code above), the machine's record, and its checks.

    `facts` is nested and ready for JSON: a value that cannot be seen is None, and its `unreadable`
    says why.
    """

    device: torch.device
    facts: dict[str, Any]
    checks: tuple[Check, ...]
    reason: str


def look(requested: str = "auto") -> Machine:
    """Choose the device that measures, record the machine and the software, and judge them.

    Parameters
    ----------
    requested
        ``"auto"`` (the current GPU if PyTorch can run a kernel on it, else the CPU), ``"cpu"``,
        ``"cuda"`` or ``"cuda:N"``.

    Raises
    ------
    DeviceError
        A GPU was asked for explicitly and cannot be had: nothing else is measured in its place.
    """
    device, reason, cuda = _choose(requested)
    read = Reader()
    compiling = read("torch.compile", check_compile_once, device)
    facts = {
        "device": str(device),
        "device_reason": reason,
        "cuda": cuda,
        "gpu": collect_gpu(device, read),
        **collect_facts(read),
        "compile": asdict(compiling or CompileCheck(False, read.failed["torch.compile"])),
        "unreadable": read.failed,
    }
    return Machine(device, facts, check(facts), reason)


def _choose(requested: str) -> tuple[torch.device, str, dict]:
    """The device, why, and what was seen of CUDA."""
    wanted = torch.device("cuda" if requested == "auto" else requested)
    if wanted.type == "cpu":
        return wanted, ASKED, collect_cuda()
    if wanted.type != "cuda":
        raise DeviceError(f"device={requested!r}: only the CPU and CUDA GPUs are measured here")
    cuda = collect_cuda(wanted)
    if cuda["usable"]:
        index = torch.cuda.current_device() if wanted.index is None else wanted.index
        return torch.device("cuda", index), AUTOMATIC if requested == "auto" else ASKED, cuda
    if requested == "auto":
        return torch.device("cpu"), NO_USABLE_GPU, cuda
    names = ("problem", "nvml", "driver", "torch_cuda", "torch_hip", "visible_devices")
    seen = "; ".join(f"{name}: {cuda[name]}" for name in names if cuda[name] is not None)
    raise DeviceError(f"device={requested!r} cannot be had; use 'cpu' or 'auto' ({seen})")


def check(facts: dict) -> tuple[Check, ...]:
    """Judge a record: not ok where something that should work does not.

    A machine without a GPU is no fault.
    """
    software, cuda, cpu, gpu = (facts[name] for name in ("software", "cuda", "cpu", "gpu"))
    compiling, diagnosis, quota = facts["compile"], cuda["diagnosis"], cpu["quota_cpus"]
    built_for = {"ROCm": cuda["torch_hip"], "CUDA": cuda["torch_cuda"]}
    built = next((f"{name} {build}" for name, build in built_for.items() if build), "CPU")
    torch_is = {"version": software["torch"], "built_for": built}
    gpu_is = cuda | {
        "gpu": cuda["gpus"][0]["name"] if cuda["gpus"] else "GPU",
        "cuda_major": (cuda["driver_cuda"] or "13").split(".")[0],
        "words": "; ".join(filter(None, (cuda["problem"], cuda["nvml"]))),
    }
    checks = [
        Check("torch", int(software["torch"].split(".")[0]) >= 2, torch_is),
        Check(f"gpu_{diagnosis}", diagnosis in ("usable", "none"), gpu_is),
        Check("compile", compiling["usable"], compiling),
        Check("code", facts["other_code"] is None, {"other_code": facts["other_code"]}),
        Check("assertions", not software["optimize"]),
    ]
    if cuda["nvml_remedy"]:
        checks.append(Check("nvml_package", False, {"remedy": cuda["nvml_remedy"]}))
    elif cuda["nvml"] and (cuda["torch_gpus"] or NO_DRIVER not in cuda["nvml"]):
        checks.append(Check("nvml", False, {"why": cuda["nvml"]}))
    elif scope := gpu and gpu["nvml_reads"]:
        checks.append(Check("mig" if scope == MIG_INSTANCE else "mig_parent", True))
    if quota:
        threads = cpu["torch_threads"]
        checks.append(Check("quota", threads <= quota, {"threads": threads, "quota": quota}))
    return tuple(checks)
