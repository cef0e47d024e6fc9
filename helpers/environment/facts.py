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
from importlib import metadata
from operator import attrgetter
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torchvision", "numpy", "scipy", "pandas", "triton", "nvidia-ml-py")
CGROUPS = Path("/sys/fs/cgroup")
SWITCHES = (  # of torch.backends
    *("fp32_precision", "cudnn.fp32_precision", "cudnn.conv.fp32_precision"),
    *("cuda.matmul.fp32_precision", "cudnn.allow_tf32", "cuda.matmul.allow_tf32"),
    *("cudnn.enabled", "cudnn.benchmark", "cudnn.deterministic"),
)

# Environment variables that change what is measured, by the beginning of their names.
MEASURED_WITH = re.compile(
    "NVIDIA_TF32_OVERRIDE|TORCH_ALLOW_TF32|CUDA_|CUBLAS|CUDNN_|PYTORCH_|TORCHINDUCTOR_|TORCHDYNAMO_"
    "|TORCH_COMPILE|TORCH_CUDNN|TORCH_BLAS|TRITON_|OMP_|MKL_|KMP_|GOMP_|OPENBLAS_|LD_PRELOAD|HIP_"
)
WHERE = ("_DIR", "_HOME", "_PATH", "_VERSION")  # of theirs, these only say where things lie


@dataclass(frozen=True)
class Check:
    """One thing that was verified, here or in the data: its code, and the values of its sentence.

    The display has the sentences.
    """

    code: str
    ok: bool
    values: dict[str, Any] = field(default_factory=dict)


class Reader:
    """Reads what this machine tells: what fails is None, and `failed` keeps the reason by name."""

    def __init__(self):
        self.failed: dict[str, str] = {}

    def __call__(self, name: str, read: Callable, *args: Any) -> Any:
        """Return ``read(*args)``, or None."""
        try:
            return read(*args)
        except Exception as error:  # NVML, /proc, psutil and git each fail in their own way
            self.failed[name] = first_line(error)
            return None


def attempt(read: Callable, *args: Any) -> Any:
    """Return ``read(*args)``, or None where this machine does not tell."""
    return Reader()("", read, *args)


def first_line(error: BaseException) -> str:
    """Return the line of an error that says most, with its type, in 200 characters at most.

    It is the first with "error:", as compilers write, else the first that says something.
    """
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("backend=")]
    said = next((line for line in told if "error:" in line), *told[:1] or [""])
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def collect_facts(read: Reader) -> dict:
    """The software, the CPU, the system and the switches that this process finds."""
    convolutions, matmul = read("tf32", tf32_in_force) or (None, None)
    packages = {name: read(name, metadata.version, name) for name in PACKAGES}
    marks = {"docker": "/.dockerenv", "podman": "/run/.containerenv"}
    return {
        "software": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            **packages,
            "optimize": sys.flags.optimize,  # of -O: Python then drops assertions
        },
        "variables": collect_variables(),
        "cpu": {
            "model": read("cpu_model", _cpu_model),
            "physical_cores": read("physical_cores", lambda: psutil.cpu_count(logical=False)),
            "logical_cores": read("logical_cores", lambda: psutil.cpu_count()),
            "usable_cores": read("usable_cores", lambda: len(os.sched_getaffinity(0))),
            "quota_cpus": read("quota_cpus", cpu_quota),
            "governor": read("governor", _governors),
            "memory_gib": read(
                "memory_gib", lambda: round(psutil.virtual_memory().total / 2**30, 1)
            ),
            "torch_threads": torch.get_num_threads(),
            "torch_interop_threads": torch.get_num_interop_threads(),
        },
        "system": {
            "os": read("os", lambda: platform.freedesktop_os_release()["PRETTY_NAME"]),
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "hypervisor": read("hypervisor", lambda: " hypervisor" in _text("/proc/cpuinfo")),
            "machine": read("machine", _text, "/sys/class/dmi/id/product_name"),
            "container": next((name for name, path in marks.items() if Path(path).exists()), None),
        },
        "git": collect_git(),
        "other_code": read("other_code", find_other_code),
        "switches": {
            "tf32_convolutions": convolutions,
            "tf32_matmul": matmul,
            **{name: read(name, attrgetter(name), torch.backends) for name in SWITCHES},
            "matmul_precision": read("matmul_precision", torch.get_float32_matmul_precision),
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        },
    }


def collect_variables() -> dict[str, str]:
    """The environment variables that are set and change what is measured."""
    names = [name for name in sorted(os.environ) if MEASURED_WITH.match(name)]
    return {name: os.environ[name] for name in names if not name.endswith(WHERE)}


def _cpu_model() -> str | None:
    found = re.search(r"^model name\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or None


def _governors() -> str | None:
    cores = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return ", ".join(sorted({_text(path) for path in cores})) or None


def cpu_quota(groups: str | None = None, mount: Path = CGROUPS) -> float | None:
    """CPUs that the control groups of this process allow, the least of them; None: no limit.

    `groups`: the text of /proc/self/cgroup. Each group on the way up may limit: version 2 by
    `cpu.max`, version 1 by `cpu.cfs_quota_us`.
    """
    limits = []
    for line in (_text("/proc/self/cgroup") if groups is None else groups).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for root in (mount / controllers, mount / ("cpu" if controllers else "unified")):
            group = root / path.lstrip("/")
            limits += [_quota(at) for at in (group, *group.parents) if at.is_relative_to(root)]
    return min(filter(None, limits), default=None)


def _quota(group: Path) -> float | None:
    if (both := group / "cpu.max").exists():
        quota, period = _text(both).split()
    elif (one := group / "cpu.cfs_quota_us").exists():
        quota, period = _text(one), _text(group / "cpu.cfs_period_us")
    else:
        return None
    return None if quota == "max" or int(quota) < 0 else int(quota) / int(period)


def _text(path: Path | str) -> str:
    return Path(path).read_text(encoding="utf8", errors="replace").strip()


def tf32_in_force() -> tuple[bool, bool]:
    """Return (convolutions, matmul): may FP32 work run in TF32 on the GPU right now?

    NVIDIA's libraries obey NVIDIA_TF32_OVERRIDE over torch's switches: 0 forbids TF32, and 1 makes
    matrix products use it (convolutions stay as torch says; measured on an H100).
    """
    override = os.environ.get("NVIDIA_TF32_OVERRIDE")
    if override == "0":
        return False, False
    convolutions, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if not hasattr(convolutions, "conv"):  # torch < 2.9
        return convolutions.allow_tf32, matmul.allow_tf32 or override == "1"
    # Once this newer interface has been used, reading the older one may raise RuntimeError.
    default = torch.backends.fp32_precision
    found = (owner.fp32_precision for owner in (convolutions.conv, matmul))
    seen = [(default if precision == "none" else precision) == "tf32" for precision in found]
    return seen[0], seen[1] or override == "1"


def collect_git(root: Path = ROOT) -> dict:
    """Commit of the code, whether tracked or new files differ from it, and why it is not known.

    A copy carried to an offline machine says its commit by J1_GIT_COMMIT: a ``.git`` there may be
    none, or older than the files.
    """
    found = {"commit": os.environ.get("J1_GIT_COMMIT") or None, "dirty": None, "problem": None}
    if found["commit"]:
        return found
    try:
        # A folder above may be a repository of its own; its commit says nothing about this code.
        if not (root / ".git").exists():
            raise FileNotFoundError(f"no .git in {root}: clone it, or set J1_GIT_COMMIT")
        found["commit"] = _git(root, "rev-parse", "HEAD")
        found["dirty"] = _git(root, "status", "--porcelain") != ""
    except Exception as error:  # git's own words hold the remedy
        found["problem"] = " ".join((getattr(error, "stderr", None) or first_line(error)).split())
    return found


def _git(root: Path, *args: str) -> str:
    settings = {"capture_output": True, "text": True, "check": True, "timeout": 20}
    return subprocess.run(["git", "-C", str(root), *args], **settings).stdout.strip()


def find_other_code(folder: Path | None = None) -> str | None:
    """Say where `helpers` came from if not from beside the notebook in the current folder."""
    folder = (folder or Path.cwd()).resolve()
    beside = (folder / "J1_benchmark.ipynb").exists() and (folder / "helpers").is_dir()
    if not beside or folder == ROOT:
        return None
    return f"`helpers` comes from {ROOT}, not from {folder}: see PYTHONPATH"


def cost(device: torch.device | str | None = None) -> dict[str, float | None]:
    """Seconds since this process started, its peak memory on the host and on `device` (MiB).

    None: cannot be seen.
    """
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes in one unit of ru_maxrss
    on_gpu = torch.cuda.is_initialized() and torch.device(device or "cuda").type == "cuda"
    gpu = attempt(torch.cuda.max_memory_allocated, device) if on_gpu else None
    host = attempt(lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)
    return {
        "wall_s": attempt(lambda: time.time() - psutil.Process().create_time()),
        "peak_host_mib": host,
        "peak_gpu_mib": None if gpu is None else gpu / 2**20,
    }
