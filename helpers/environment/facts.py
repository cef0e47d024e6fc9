"""What machine this is: small `collect_*` functions, each filling one part of the record.

One function per subject and one record, after psf/pyperf's ``_collect_metadata.py``. A reading that
fails gives None and its reason: not every machine shows everything, and no session may die of that.
"""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from operator import attrgetter
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torchvision", "numpy", "scipy", "pandas", "triton", "nvidia-ml-py")
CGROUPS = Path("/sys/fs/cgroup")

# Environment variables that change what is measured, by the beginning of their names.
MEASURED_WITH = re.compile(
    "NVIDIA_TF32_OVERRIDE|TORCH_ALLOW_TF32|CUDA_|CUBLAS|CUDNN_|PYTORCH_|TORCHINDUCTOR_|TORCHDYNAMO_"
    "|TORCH_COMPILE|TORCH_CUDNN|TORCH_BLAS|TRITON_|OMP_|MKL_|KMP_|GOMP_|OPENBLAS_|LD_PRELOAD|HIP_"
)
WHERE = ("_DIR", "_HOME", "_PATH", "_VERSION")  # of theirs, these only say where things lie


@dataclass(frozen=True)
class Check:
    """One thing that was verified, here or in the data; `detail` is a French sentence."""

    name: str
    ok: bool
    detail: str


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


def first_line(error: BaseException, limit: int = 200) -> str:
    """Return the first line of an error that says something, with its type, shortened."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("backend=")]
    text = f"{type(error).__name__}: {told[0]}" if told else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def collect_software(read: Reader) -> dict:
    """Versions of Python and of the packages that measure; whether Python drops assertions."""
    packages = {name: read(name, metadata.version, name) for name in PACKAGES}
    versions = {"python": platform.python_version(), "torch": str(torch.__version__), **packages}
    return versions | {"optimize": sys.flags.optimize}


def collect_variables() -> dict[str, str]:
    """The environment variables that are set and change what is measured."""
    names = [name for name in sorted(os.environ) if MEASURED_WITH.match(name)]
    return {name: os.environ[name] for name in names if not name.endswith(WHERE)}


def collect_cpu(read: Reader) -> dict:
    """CPU model, cores, quota, frequency governor, memory and torch's threads."""
    return {
        "model": read("cpu_model", _cpu_model),
        "physical_cores": read("physical_cores", lambda: psutil.cpu_count(logical=False)),
        "logical_cores": read("logical_cores", lambda: psutil.cpu_count()),
        "usable_cores": read("usable_cores", lambda: len(os.sched_getaffinity(0))),
        "quota_cpus": read("quota_cpus", cpu_quota),
        "governor": read("governor", _governors),
        "memory_gib": read("memory_gib", lambda: round(psutil.virtual_memory().total / 2**30, 1)),
        "torch_threads": torch.get_num_threads(),
        "torch_interop_threads": torch.get_num_interop_threads(),
    }


def _cpu_model() -> str | None:
    text = _text("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or None


def _governors() -> str | None:
    cores = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return ", ".join(sorted({path.read_text(encoding="utf8").strip() for path in cores})) or None


def cpu_quota(groups: str | None = None, mount: Path = CGROUPS) -> float | None:
    """CPUs that the control groups of this process allow, the least of them; None: no limit.

    `groups`: the text of /proc/self/cgroup. Version 2 limits by `cpu.max` of each group on the
    way up, version 1 by `cpu.cfs_quota_us`.
    """
    groups = _text("/proc/self/cgroup") if groups is None else groups
    limits = []
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names = ("", "unified")
        elif "cpu" in controllers.split(","):
            names = (controllers, "cpu")
        else:
            continue
        for root in (mount / name for name in names):
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


def collect_system(read: Reader) -> dict:
    """Operating system, kernel, and hints that this is a virtual machine or a container."""
    marks = {"docker": "/.dockerenv", "podman": "/run/.containerenv"}
    found = [name for name, path in marks.items() if os.path.exists(path)]
    return {
        "os": read("os", lambda: platform.freedesktop_os_release()["PRETTY_NAME"]),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "hypervisor": read(
            "hypervisor", lambda: bool(re.search(r"\bhypervisor\b", _text("/proc/cpuinfo")))
        ),
        "machine": read("machine", lambda: _text("/sys/class/dmi/id/product_name").strip()),
        "container": found[0] if found else None,
    }


def _text(path: Path | str) -> str:
    return Path(path).read_text(encoding="utf8", errors="replace")


def collect_switches(read: Reader) -> dict:
    """TF32 and cuDNN switches, through both of PyTorch's TF32 interfaces.

    Once the newer interface (``fp32_precision``, torch >= 2.9) has been used, reading the older one
    (``allow_tf32``) can raise RuntimeError: that side is then None.
    """

    def switches(*names: str) -> dict:
        return {name: read(name, attrgetter(name), torch.backends) for name in names}

    new = switches(
        "fp32_precision",
        "cudnn.fp32_precision",
        "cudnn.conv.fp32_precision",
        "cuda.matmul.fp32_precision",
    )
    old = switches("cudnn.allow_tf32", "cuda.matmul.allow_tf32")
    every, cudnn, conv, matmul = new.values()
    return {
        "tf32_convolutions": _tf32(old["cudnn.allow_tf32"], conv, cudnn, every),
        "tf32_matmul": _tf32(old["cuda.matmul.allow_tf32"], matmul, every),
        **new,
        **old,
        "matmul_precision": read("matmul_precision", torch.get_float32_matmul_precision),
        **switches("cudnn.enabled", "cudnn.benchmark", "cudnn.deterministic"),
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
    """Commit of the code, whether tracked or new files differ from it, and why it is not known.

    A copy carried to an offline machine says its commit by J1_GIT_COMMIT: a ``.git`` there may be
    none, or older than the files.
    """
    if given := os.environ.get("J1_GIT_COMMIT"):
        return {"commit": given, "dirty": None, "problem": None}
    if not (root / ".git").exists():
        # A folder above may be a repository of its own; its commit says nothing about this code.
        problem = f"no .git in {root}: clone the repository, or set J1_GIT_COMMIT to the commit"
        return {"commit": None, "dirty": None, "problem": problem}
    found = {"commit": None, "dirty": None, "problem": None}
    try:
        found["commit"] = _git(root, "rev-parse", "HEAD")
        found["dirty"] = _git(root, "status", "--porcelain") != ""
    except subprocess.CalledProcessError as error:  # its words hold the remedy
        found["problem"] = " ".join(error.stderr.split())
    except Exception as error:
        found["problem"] = first_line(error)
    return found


def _git(root: Path, *args: str) -> str:
    command, english = ["git", "-C", str(root), *args], os.environ | {"LC_ALL": "C"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=20, env=english
    )
    return done.stdout.strip()


def find_other_code(folder: Path | None = None) -> str | None:
    """Say where `helpers` came from if not from beside the notebook in the current folder."""
    folder = (folder or Path.cwd()).resolve()
    beside = (folder / "J1_benchmark.ipynb").exists() and (folder / "helpers").is_dir()
    if not beside or folder == ROOT:
        return None
    return f"`helpers` comes from {ROOT}, not from {folder}: see PYTHONPATH"
