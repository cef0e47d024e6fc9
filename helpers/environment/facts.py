"""What machine this is. A reading that fails gives None and its reason, and ends nothing."""

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


class Reader:
    """Returns ``read(*args)``, or None where that fails; `failed` keeps the reason by name."""

    def __init__(self):
        self.failed: dict[str, str] = {}

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
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("backend=")]
    said = next((line for line in told if "error:" in line), *told[:1] or [""])
    text = f"{type(error).__name__}: {said}".removesuffix(": ")
    return text if len(text) <= 200 else text[:199] + "…"


def _text(path: Path | str) -> str:
    return Path(path).read_text(encoding="utf8", errors="replace").strip()


def cpu_quota(groups: str | None = None, mount: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPUs that the groups of /proc/self/cgroup, or their parents, allow; None: no limit."""
    limits = []
    for line in (_text("/proc/self/cgroup") if groups is None else groups).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for root in (mount / controllers, mount / ("cpu" if controllers else "unified")):
            group = root / path.lstrip("/")
            for at in (group, *group.parents):
                for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):  # v2, v1
                    if at.is_relative_to(root) and (at / names[0]).exists():
                        quota, period = " ".join(_text(at / name) for name in names).split()
                        limits += [] if quota in ("max", "-1") else [int(quota) / int(period)]
    return min(limits, default=None)


def tf32_in_force() -> tuple[bool, bool]:
    """Return (convolutions, matmul): may FP32 work run in TF32 on the GPU right now?

    NVIDIA_TF32_OVERRIDE rules over torch's switches: 0 forbids TF32, and 1 makes matrix products
    use it (convolutions stay as torch says; measured on an H100).
    """
    override = os.environ.get("NVIDIA_TF32_OVERRIDE")
    if override == "0":
        return False, False
    convolutions, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if not hasattr(convolutions, "conv"):  # torch < 2.9
        return convolutions.allow_tf32, matmul.allow_tf32 or override == "1"
    # Once this newer interface has been used, reading the older one may raise RuntimeError.
    found = {"none": torch.backends.fp32_precision}  # where a narrower switch says nothing
    conv, product = convolutions.conv.fp32_precision, matmul.fp32_precision
    return found.get(conv, conv) == "tf32", found.get(product, product) == "tf32" or override == "1"


def find_other_code(folder: Path | None = None) -> str | None:
    """Say where `helpers` came from if not from beside the notebook in the current folder."""
    folder = (folder or Path.cwd()).resolve()
    beside = (folder / "J1_benchmark.ipynb").exists() and (folder / "helpers").is_dir()
    told = f"`helpers` comes from {ROOT}, not from {folder}: see PYTHONPATH"
    return told if beside and folder != ROOT else None


CPUS, GOVERNOR = Path("/sys/devices/system/cpu"), "cpu[0-9]*/cpufreq/scaling_governor"
MARKS = {"docker": "/.dockerenv", "podman": "/run/.containerenv"}
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
        "container": lambda: next((name for name in MARKS if Path(MARKS[name]).exists()), None),
    },
    "switches": {
        "tf32_convolutions": lambda: tf32_in_force()[0],
        "tf32_matmul": lambda: tf32_in_force()[1],
        "cudnn_enabled": lambda: torch.backends.cudnn.enabled,
        "cudnn_benchmark": lambda: torch.backends.cudnn.benchmark,
        "cudnn_deterministic": lambda: torch.backends.cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled,
    },
}


def collect_facts(read: Reader) -> dict:
    """The software, the CPU, the system and the switches that this process finds."""
    given = [name for name in sorted(os.environ) if MEASURED_WITH.match(name)]
    return {
        **{s: {key: read(f"{s}.{key}", get) for key, get in FACTS[s].items()} for s in FACTS},
        "variables": {name: os.environ[name] for name in given if not name.endswith(WHERE)},
        "git": collect_git(),
        "other_code": read("other_code", find_other_code),
    }


def collect_git(root: Path = ROOT) -> dict:
    """Commit of the code, whether tracked or new files differ from it, and why it is not known."""
    # J1_GIT_COMMIT: of a copy, whose .git may be older than its files
    found = {"commit": os.environ.get("J1_GIT_COMMIT") or None, "dirty": None, "problem": None}
    git = partial(subprocess.run, capture_output=True, text=True, check=True, timeout=20, cwd=root)
    try:
        if not found["commit"]:
            # A folder above may be a repository of its own; its commit says nothing of this code.
            if not (root / ".git").exists():
                raise FileNotFoundError(f"no .git in {root}: clone it, or set J1_GIT_COMMIT")
            found["commit"] = git(["git", "rev-parse", "HEAD"]).stdout.strip()
            found["dirty"] = git(["git", "status", "--porcelain"]).stdout.strip() != ""
    except Exception as error:  # git's own words hold the remedy
        found["problem"] = " ".join((getattr(error, "stderr", None) or first_line(error)).split())
    return found


def cost(opened_s: float, device: torch.device | str | None = None) -> dict[str, float | None]:
    """Seconds since the session was opened at `opened_s` (monotonic), and this process's peak
    memory in MiB; None: cannot be seen."""
    mib = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in bytes or in KiB
    on_gpu = torch.cuda.is_initialized() and torch.device(device or "cuda").type == "cuda"
    gpu = attempt(torch.cuda.max_memory_allocated, device) if on_gpu else None
    return {
        "session_s": time.monotonic() - opened_s,
        "peak_host_mib": attempt(lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / mib),
        "peak_gpu_mib": None if gpu is None else gpu / 2**20,
    }
