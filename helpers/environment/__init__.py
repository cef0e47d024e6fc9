"""Step 1: what machine this is, and whether it can do the day's work."""

import os
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import torch

from helpers.environment import nvml
from helpers.environment.compile import CompileCheck, check_compile_once
from helpers.environment.facts import Check, Reader, collect_facts, cost, first_line

__all__ = ["Check", "DeviceError", "Machine", "cost", "look"]

UNAVAILABLE = "torch.cuda.is_available() is False"
# What torch says where there simply is no GPU; anything else it says is a fault.
NO_GPU = ("Found no NVIDIA driver", "No CUDA GPUs are available", "Torch not compiled", UNAVAILABLE)


class DeviceError(RuntimeError):
    """The device that was asked for cannot be had."""


@dataclass(frozen=True)
class Machine:
    """The device that measures and why, the machine's record, ready for JSON, and its checks.

    `reason`: "asked", "automatic", or "no_usable_gpu": `facts["cuda"]` then says more. A fact that
    cannot be seen is None, and `facts["unreadable"]` says why.
    """

    device: torch.device
    facts: dict[str, Any]
    checks: tuple[Check, ...]
    reason: str


def look(requested: str = "auto") -> Machine:
    """Choose the device that measures, record the machine and the software, and judge them.

    `requested`: "cpu", "cuda", "cuda:N", or "auto": the current GPU if PyTorch can run a kernel on
    it, else the CPU. Raise DeviceError where a GPU was asked for and cannot be had: nothing else is
    measured in its place.
    """
    read, wanted = Reader(), torch.device("cuda" if requested == "auto" else requested)
    if wanted.type not in ("cpu", "cuda"):
        raise DeviceError(f"device={requested!r}: only the CPU and CUDA GPUs are measured here")
    cuda = collect_cuda(wanted, read)
    device, reason = wanted, "automatic" if requested == "auto" else "asked"
    if wanted.type == "cuda":
        if cuda["usable"] and wanted.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        elif not cuda["usable"] and requested != "auto":
            seen = f"device={requested!r} cannot be had; use 'cpu' or 'auto'"
            raise DeviceError(f"{seen} ({cuda['seen']})")
        elif not cuda["usable"]:
            device, reason = torch.device("cpu"), "no_usable_gpu"
    compiling = read("torch.compile", check_compile_once, device)
    facts = {
        "device": str(device),
        "device_reason": reason,
        "cuda": cuda,
        "gpu": nvml.collect_gpu(device, read) if device.type == "cuda" else None,
        **collect_facts(read),
        "compile": asdict(compiling or CompileCheck(False, read.failed["torch.compile"])),
        "unreadable": read.failed,
    }
    return Machine(device, facts, check(facts), reason)


def collect_cuda(device: torch.device, read: Reader) -> dict:
    """What PyTorch and NVML each say about CUDA, `seen` in one line; a kernel is tried on a GPU.

    `diagnosis`: "usable"; "none": no GPU, and nothing that should show one; "unusable".
    """
    problem, unread, cudnn = (
        find_cuda_problem(device),
        nvml.nvml_problem(),
        read("cudnn", torch.backends.cudnn.version),  # 9.19.0 is 91900
    )
    cuda = {
        "usable": problem is None,
        "problem": problem,
        "torch_cuda": torch.version.cuda,
        "torch_hip": torch.version.hip,
        "torch_gpus": read("torch_gpus", torch.cuda.device_count) or 0,
        "cudnn": cudnn and f"{cudnn // 10_000}.{cudnn % 10_000 // 100}.{cudnn % 100}",
        "nvml": unread,
        **nvml.collect_driver(None if unread else read),
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    told = ("problem", "nvml", "driver", "torch_cuda", "torch_hip", "visible_devices")
    cuda["seen"] = "; ".join(f"{name}: {cuda[name]}" for name in told if cuda[name] is not None)
    driver_fails = "NVMLError" in (unread or "") and nvml.NO_DRIVER not in unread
    no_fault = not driver_fails and any(words in (problem or "") for words in NO_GPU)
    nowhere = no_fault and not (cuda["gpus"] or cuda["torch_gpus"])
    return cuda | {"diagnosis": "usable" if not problem else "none" if nowhere else "unusable"}


def find_cuda_problem(device: torch.device) -> str | None:
    """Say why PyTorch cannot use CUDA, on `device` by running one kernel there, or return None.

    ``torch.cuda.is_available()`` is also True for a GPU whose architecture this build has no
    kernels for. Its warning, given once in a process, is the reason; `init` says it each time. A
    session on the CPU leaves no CUDA context on a GPU that someone else may be measuring.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if torch.cuda.is_available():
                if device.type == "cuda":
                    torch.arange(3, device=device).sum().item()
                return None
            if not caught:
                torch.cuda.init()
        except Exception as error:  # any CUDA error means that this GPU cannot be used
            return first_line(error)
    return str(caught[0].message).splitlines()[0][:400] if caught else UNAVAILABLE


def check(facts: dict) -> tuple[Check, ...]:
    """Judge a record: not ok where something that should work does not; no GPU is no fault."""
    software, cuda, cpu, gpu = (facts[name] for name in ("software", "cuda", "cpu", "gpu"))
    unread, quota, threads = cuda["nvml"], cpu["quota_cpus"], cpu["torch_threads"]
    checks = [
        Check("torch", int(software["torch"].split(".")[0]) >= 2, software | cuda),
        Check(f"gpu_{cuda['diagnosis']}", cuda["diagnosis"] != "unusable", cuda),
        Check("compile", facts["compile"]["usable"], facts["compile"]),
        Check("code", facts["other_code"] is None, {"other_code": facts["other_code"]}),
        Check("assertions", not software["optimize"]),
    ]
    if unread and (cuda["torch_gpus"] or nvml.NO_DRIVER not in unread) or cuda["nvml_remedy"]:
        why = "; ".join(filter(None, (unread, cuda["nvml_remedy"])))
        checks.append(Check("nvml", False, {"why": why}))
    elif scope := gpu and gpu["nvml_reads"]:
        checks.append(Check("mig" if scope == nvml.MIG_INSTANCE else "mig_parent", True))
    if quota:
        checks.append(Check("quota", threads <= quota, {"threads": threads, "quota": quota}))
    return tuple(checks)
