"""Step 1: what machine this is, and whether it can do the day's work."""

import os
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from helpers.environment import nvml
from helpers.environment.compile import compile_problem
from helpers.environment.facts import Check, Reader, collect_facts, cost, first_line

__all__ = ["Check", "DeviceError", "Machine", "cost", "look"]

UNAVAILABLE = "torch.cuda.is_available() is False"
# What torch says where there simply is no GPU; anything else it says is a fault.
NO_GPU = ("Found no NVIDIA driver", "No CUDA GPUs are available", "Torch not compiled", UNAVAILABLE)


class DeviceError(RuntimeError):
    """The device that was asked for cannot be had."""


@dataclass(frozen=True)
class Machine:
    """The device that measures, the machine's record and its checks."""

    device: torch.device
    facts: dict[str, Any]  # ready for JSON; None where not visible, "unreadable" says why
    checks: tuple[Check, ...]
    reason: str  # of the device: "asked", "automatic" or "no_usable_gpu"


def look(requested: str = "auto") -> Machine:
    """Choose the device that measures, record the machine and the software, and judge them.

    `requested`: "cpu", "cuda", "cuda:N" or "auto": the current GPU if a kernel runs on it, else the
    CPU. Raise DeviceError where another is asked for or cannot be had: nothing replaces it.
    """
    read, device = Reader(), torch.device("cuda" if requested == "auto" else requested)
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device={requested!r}: only the CPU and CUDA GPUs are measured here")
    cuda, reason = collect_cuda(device, read), "automatic" if requested == "auto" else "asked"
    if device.type == "cuda" and cuda["problem"]:
        if requested != "auto":
            told = f"device={requested!r} cannot be had; use 'cpu' or 'auto'"
            raise DeviceError(f"{told} ({cuda['seen']})")
        device, reason = torch.device("cpu"), "no_usable_gpu"
    elif device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    facts = {
        "device": str(device),
        "cuda": cuda,
        "gpu": nvml.collect_gpu(device, read) if device.type == "cuda" else None,
        **collect_facts(read),
        "compile": {"usable": not (problem := compile_problem(device)), "reason": problem},
        "unreadable": read.failed,
    }
    return Machine(device, facts, check(facts), reason)


def collect_cuda(device: torch.device, read: Reader) -> dict:
    """What PyTorch and NVML each say about CUDA, the gist of it (`seen`) and a diagnosis."""
    cudnn = read("cudnn", torch.backends.cudnn.version)  # 9.19.0 is 91900
    cuda = {
        "problem": find_cuda_problem(device),
        **nvml.collect_driver(read),
        "torch_cuda": torch.version.cuda,
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "torch_gpus": read("torch_gpus", torch.cuda.device_count) or 0,
        "cudnn": cudnn and f"{cudnn // 10_000}.{cudnn % 10_000 // 100}.{cudnn % 100}",
    }
    told = ("problem", "nvml", "driver", "torch_cuda", "visible_devices")
    cuda["seen"] = "; ".join(f"{name}: {cuda[name]!r}" for name in told if cuda[name] is not None)
    driver_fails = "NVMLError" in (cuda["nvml"] or "") and nvml.NO_DRIVER not in cuda["nvml"]
    expected = cuda["gpus"] or cuda["torch_gpus"] or driver_fails
    no_fault = not expected and any(words in (cuda["problem"] or "") for words in NO_GPU)
    cuda["diagnosis"] = "none" if no_fault else "unusable" if cuda["problem"] else "usable"
    return cuda


def find_cuda_problem(device: torch.device) -> str | None:
    """Say why PyTorch cannot use CUDA, or return None; one kernel is run if `device` is a GPU.

    ``is_available()`` is also True for a GPU that this build has no kernels for. A session on the
    CPU leaves no CUDA context on a GPU that someone else may be measuring.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # given once; `init` says it each time
            if not torch.cuda.is_available():
                torch.cuda.init()
                return UNAVAILABLE
        if device.type == "cuda":
            torch.arange(3, device=device).sum().item()
    except Exception as error:  # any CUDA error means that this GPU cannot be used
        return first_line(error)
    return None


def check(facts: dict) -> tuple[Check, ...]:
    """Judge a record: not ok where something that should work does not; no GPU is no fault."""
    software, cuda, cpu, gpu = (facts[name] for name in ("software", "cuda", "cpu", "gpu"))
    problem, quota, threads = cuda["nvml"], cpu["quota_cpus"], cpu["torch_threads"]
    checks = [
        Check("torch", int(software["torch"].split(".")[0]) >= 2, {"version": software["torch"]}),
        Check(f"gpu_{cuda['diagnosis']}", cuda["diagnosis"] != "unusable", {"seen": cuda["seen"]}),
        Check("compile", facts["compile"]["usable"], facts["compile"]),
        Check("assertions", not software["optimize"]),
    ]
    if problem and (cuda["torch_gpus"] or nvml.NO_DRIVER not in problem):
        checks.append(Check("nvml", False, {"why": problem}))
    elif gpu and gpu["mig"]:
        checks.append(Check("mig", True))
    if quota:
        checks.append(Check("quota", threads <= quota, {"threads": threads, "quota": quota}))
    return tuple(checks)
