"""What machine this is; for all rooms `attempt`, a reading or None, `first_line` of an error."""

import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path(__file__).resolve().parents[2]
# Variables that change what is measured, by the beginning of their names, and ends that do not.
MEASURED_WITH = re.compile(
    "NVIDIA_TF32|TORCH|PYTORCH_|TRITON_|CUDA_|CUBLAS|CUDNN_|OMP_|MKL_|KMP_|GOMP_|LD_PRELOAD"
)
WHERE = ("_DIR", "_HOME", "_PATH", "_VERSION")


@dataclass(frozen=True)
class Check:
    """One thing that was verified, here or in the data: its code, and its sentence's values."""

    code: str
    ok: bool
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reader:
    """Returns ``read(*args)``, or None where that fails; `failed` keeps the reason by name."""

    failed: dict[str, str] = field(default_factory=dict)

    def __call__(self, name: str, read: Callable, *args: Any) -> Any:
        try:
            return read(*args)
        except Exception as error:  # NVML, /proc, psutil and git each fail in their own way
            self.failed[name] = first_line(error)
            return None


def attempt(read: Callable, *args: Any) -> Any:
    """Return ``read(*args)``, or None where this machine does not tell."""
    return Reader()("", read, *args)


def first_line(error: BaseException) -> str:
    """An error's type and its first line with "error:", else its first; 200 characters at most."""
    lines = [line.strip() for line in str(getattr(error, "stderr", None) or error).splitlines()]
    told = [line for line in lines if line and not line.startswith("backend=")]
    said = next((line for line in told if "error:" in line), *told[:1] or [""])
    return f"{type(error).__name__}: {said}".removesuffix(": ")[:200]


def _text(path: Path | str) -> str:
    return Path(path).read_text(encoding="utf8", errors="replace").strip()


def cpu_quota(group: Path | None = None) -> float | None:
    """CPUs that this process's control group (version 2), or one above it, allows; None: all."""
    if group is None:
        path = re.search("^0::/(.*)", _text("/proc/self/cgroup"), re.MULTILINE)
        group = Path("/sys/fs/cgroup", path[1] if path else "")
    files = [at / "cpu.max" for at in (group, *group.parents)]
    limits = [_text(file).split() for file in files if file.exists()]
    return min((int(q) / int(period) for q, period in limits if q != "max"), default=None)


def tf32_in_force() -> tuple[bool, bool]:
    """Return (convolutions, matmul): may FP32 work run in TF32 on the GPU right now?

    NVIDIA_TF32_OVERRIDE rules over torch's switches: 0 forbids TF32, and 1 makes matrix products
    use it (convolutions stay as torch says; measured on an H100).
    """
    override = os.environ.get("NVIDIA_TF32_OVERRIDE")
    if override == "0":
        return False, False
    switches = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    convolutions, matmul = (switch.fp32_precision == "tf32" for switch in switches)
    return convolutions, matmul or override == "1"


def git(*arguments: str) -> str:
    """What git says of this code; another repository, in a folder above, says nothing of it."""
    if not (ROOT / ".git").exists():
        raise FileNotFoundError(f"no .git in {ROOT}: clone it, or set J1_GIT_COMMIT")
    settings = {"capture_output": True, "text": True, "check": True, "timeout": 20, "cwd": ROOT}
    return subprocess.run(["git", *arguments], **settings).stdout.strip()


CPUS, GOVERNOR = Path("/sys/devices/system/cpu"), "cpu[0-9]*/cpufreq/scaling_governor"
PACKAGES = ("torchvision", "numpy", "scipy", "pandas", "triton", "nvidia-ml-py")
FACTS: dict[str, dict[str, Callable]] = {  # by section of the record
    "software": {
        "python": platform.python_version,
        "torch": lambda: str(torch.__version__),
        **{name: partial(metadata.version, name) for name in PACKAGES},
        "optimize": lambda: sys.flags.optimize,  # of -O: Python then drops assertions
    },
    "cpu": {
        "model": lambda: re.search(r"model name\s*:\s*(.+)", _text("/proc/cpuinfo"))[1],
        "physical_cores": lambda: psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count,
        "usable_cores": lambda: len(os.sched_getaffinity(0)),
        "quota_cpus": cpu_quota,
        "governor": lambda: ", ".join(sorted(set(map(_text, CPUS.glob(GOVERNOR))))) or None,
        "torch_threads": torch.get_num_threads,
    },
    "system": {
        "os": lambda: platform.freedesktop_os_release()["PRETTY_NAME"],
        "kernel": platform.release,
        "hypervisor": lambda: " hypervisor" in _text("/proc/cpuinfo"),
    },
    "switches": {
        "tf32_convolutions": lambda: tf32_in_force()[0],
        "tf32_matmul": lambda: tf32_in_force()[1],
        "cudnn_enabled": lambda: torch.backends.cudnn.enabled,
        "cudnn_benchmark": lambda: torch.backends.cudnn.benchmark,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled,
    },
    "git": {  # J1_GIT_COMMIT: of a copy, whose .git may be older than its files
        "commit": lambda: os.environ.get("J1_GIT_COMMIT") or git("rev-parse", "HEAD"),
        "dirty": lambda: (
            None if os.environ.get("J1_GIT_COMMIT") else git("status", "--porcelain") != ""
        ),
    },
}


def collect_facts(read: Reader) -> dict:
    """The software, the CPU, the system and the switches that this process finds."""
    given = [name for name in sorted(os.environ) if MEASURED_WITH.match(name)]
    return {
        **{s: {key: read(f"{s}.{key}", get) for key, get in FACTS[s].items()} for s in FACTS},
        "variables": {name: os.environ[name] for name in given if not name.endswith(WHERE)},
    }


def cost(opened_s: float, device: torch.device | str | None = None) -> dict[str, float | None]:
    """Seconds since `opened_s` (monotonic), and this process's peak memory in MiB; None: unseen."""
    mib = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in bytes or in KiB
    on_gpu = torch.cuda.is_initialized() and torch.device(device or "cuda").type == "cuda"
    gpu = attempt(torch.cuda.max_memory_allocated, device) if on_gpu else None
    return {
        "session_s": time.monotonic() - opened_s,
        "peak_host_mib": attempt(lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / mib),
        "peak_gpu_mib": None if gpu is None else gpu / 2**20,
    }
