"""What machine this is: small `collect_*` functions, each filling one part of the record.

One function per subject and one record, after psf/pyperf's ``_collect_metadata.py``. A reading that
fails gives None: not every machine shows everything, and no session may die of that.
"""

import os
import platform
import re
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torchvision", "numpy", "scipy", "pandas", "triton", "nvidia-ml-py")


def attempt(read: Callable, *args: Any) -> Any:
    """Return ``read(*args)``, or None where this machine does not tell."""
    try:
        return read(*args)
    except Exception:  # NVML, /sys, git and both TF32 interfaces each fail in their own way
        return None


def first_line(error: BaseException, limit: int = 200) -> str:
    """Return the first line of an error that says something, with its type, shortened."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("backend=")]
    text = f"{type(error).__name__}: {told[0]}" if told else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def collect_software() -> dict:
    """Versions of Python and of the packages that measure."""
    packages = {name: attempt(metadata.version, name) for name in PACKAGES}
    return {"python": platform.python_version(), "torch": str(torch.__version__), **packages}


def collect_cpu() -> dict:
    """CPU model, cores, frequency governor, memory and torch's threads."""
    cores = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    governors = {attempt(path.read_text) for path in cores} - {None}
    return {
        "model": attempt(_cpu_model),
        "physical_cores": attempt(psutil.cpu_count, False),
        "logical_cores": attempt(psutil.cpu_count),
        "usable_cores": attempt(lambda: len(os.sched_getaffinity(0))),
        "governor": ", ".join(sorted(text.strip() for text in governors)) or None,
        "memory_gib": attempt(lambda: round(psutil.virtual_memory().total / 2**30, 1)),
        "torch_threads": torch.get_num_threads(),
        "torch_interop_threads": torch.get_num_interop_threads(),
    }


def _cpu_model() -> str | None:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or None


def collect_system() -> dict:
    """Operating system, kernel, and hints that this is a virtual machine or a container."""
    cpuinfo = attempt(Path("/proc/cpuinfo").read_text)
    marks = {"docker": "/.dockerenv", "podman": "/run/.containerenv"}
    found = [name for name, path in marks.items() if os.path.exists(path)]
    return {
        "os": attempt(lambda: platform.freedesktop_os_release()["PRETTY_NAME"]),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "hypervisor": None
        if cpuinfo is None
        else re.search(r"\bhypervisor\b", cpuinfo) is not None,
        "machine": attempt(
            lambda: Path("/sys/class/dmi/id/product_name").read_text(encoding="utf-8").strip()
        ),
        "container": found[0] if found else None,
    }


def collect_switches() -> dict:
    """TF32 and cuDNN switches, through both of PyTorch's TF32 interfaces.

    Once the newer interface (``fp32_precision``, torch >= 2.9) has been used, reading the older one
    (``allow_tf32``) can raise RuntimeError: that side is then None.
    """
    backends = torch.backends
    new = {
        "all": attempt(lambda: backends.fp32_precision),
        "cudnn": attempt(lambda: backends.cudnn.fp32_precision),
        "cudnn.conv": attempt(lambda: backends.cudnn.conv.fp32_precision),
        "cuda.matmul": attempt(lambda: backends.cuda.matmul.fp32_precision),
    }
    old = {
        "cudnn.allow_tf32": attempt(lambda: backends.cudnn.allow_tf32),
        "cuda.matmul.allow_tf32": attempt(lambda: backends.cuda.matmul.allow_tf32),
        "matmul_precision": attempt(torch.get_float32_matmul_precision),
    }
    return {
        "tf32_convolutions": _tf32(
            old["cudnn.allow_tf32"], new["cudnn.conv"], new["cudnn"], new["all"]
        ),
        "tf32_matmul": _tf32(old["cuda.matmul.allow_tf32"], new["cuda.matmul"], new["all"]),
        "fp32_precision": new,
        "allow_tf32": old,
        "cudnn_enabled": attempt(lambda: backends.cudnn.enabled),
        "cudnn_benchmark": attempt(lambda: backends.cudnn.benchmark),
        "cudnn_deterministic": attempt(lambda: backends.cudnn.deterministic),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def _tf32(old: bool | None, *new: str | None) -> bool | None:
    """Tell whether TF32 is in force; the first of `new` that is not "none" decides."""
    if old is not None:
        return old
    if new[0] is None:
        return None
    return next((value for value in new if value not in (None, "none")), "ieee") == "tf32"


def collect_git(root: Path = ROOT) -> dict:
    """Commit of the code and whether tracked or new files differ from it.

    A copy carried to an offline machine says its commit by J1_GIT_COMMIT: a ``.git`` there may be
    none, or older than the files.
    """
    if given := os.environ.get("J1_GIT_COMMIT"):
        return {"commit": given, "dirty": None}

    def git(*args: str) -> str:
        command = ["git", "-C", str(root), *args]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.strip()

    # A folder above may be a repository of its own; its commit says nothing about this code.
    own = (root / ".git").exists()
    commit = attempt(git, "rev-parse", "HEAD") if own else None
    if commit is None:
        return {"commit": None, "dirty": None}
    changes = attempt(git, "status", "--porcelain")
    return {"commit": commit, "dirty": None if changes is None else changes != ""}
