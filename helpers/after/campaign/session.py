"""One session of a campaign, on the machine that measures: the notebook through papermill.

Nothing here knows of Dask. The folder comes back as {name: bytes}; where it lands is
`campaign_folder`'s affair.
"""

import hashlib
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import papermill
import pynvml
from papermill.exceptions import PapermillExecutionError

from helpers.after.report.session import read_session
from helpers.results.files import ResultsError, write_file

ROOT = Path(__file__).resolve().parents[3]
NOTEBOOK = "J1_benchmark.ipynb"
FACTS = "campaign.json"  # who measured where and when, beside the session's own files
START_TIMEOUT_S = 300  # of a kernel, on a machine where many start at once
CELL_TIMEOUT_S = 7200  # a GPU that hangs must not hold its worker for ever
ERROR_LINES = 3


class SessionError(RuntimeError):
    """A session could not be measured; the message is short enough to be listed."""


@dataclass(frozen=True)
class Task:
    """What a worker is asked to measure."""

    campaign: str
    session: str
    set: int
    repetition: int
    parameters: dict  # of the notebook, all of them but session and results_dir
    notebook: str  # path from the project's root, or absolute
    code: str  # what `code_hash` must say on the worker


def code_hash(notebook: str = NOTEBOOK) -> str:
    """Fingerprint of what measures: the notebook's code cells and helpers/, campaigns' own apart.

    Stored outputs and prose do not count: they change no figure.
    """
    cells = json.loads((ROOT / notebook).read_text(encoding="utf8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    digest = hashlib.sha256(json.dumps(code).encode())
    for module in sorted((ROOT / "helpers").rglob("*.py")):
        name = module.relative_to(ROOT).as_posix()
        if "campaign" not in name:
            digest.update(b"\0%b\0%b" % (name.encode(), module.read_bytes()))
    return digest.hexdigest()


def visible_gpus() -> list[str]:
    """The GPUs that CUDA would show to a process started here, as CUDA_VISIBLE_DEVICES names them.

    UUIDs where nothing is set: CUDA and NVML may number the same GPUs differently.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no NVIDIA driver
        return []
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
    finally:
        pynvml.nvmlShutdown()


def machine() -> str:
    """What containers of one host have in common, whatever their host names: its boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return platform.node()


def measure(task: Task, scratch: Path) -> dict[str, bytes]:
    """Execute the notebook in `scratch` and return the session's folder, file by file.

    Raises
    ------
    SessionError
        The project on this machine is another one than the plan's, more than one GPU is visible,
        the notebook failed, or it left no complete session.
    """
    _check_worker(task)
    folder, name = scratch / task.session, Path(task.notebook).name
    folder.mkdir()
    started = time.time()
    try:
        papermill.execute_notebook(
            ROOT / task.notebook,
            folder / f".{name}",  # papermill rewrites it after each cell
            {**task.parameters, "session": task.session, "results_dir": str(scratch)},
            cwd=ROOT,
            progress_bar=False,
            start_timeout=START_TIMEOUT_S,
            execution_timeout=CELL_TIMEOUT_S,
        )
    except PapermillExecutionError as error:
        told = f"cell [{error.exec_count}]: {error.ename}: {error.evalue}"
        raise SessionError(f"on {platform.node()}: {first_lines(told)}") from None
    except Exception as error:  # the kernel died or never came; whatever it is must travel as text
        told = f"{type(error).__name__}: {error}"
        raise SessionError(f"on {platform.node()}: {first_lines(told)}") from None
    (folder / f".{name}").rename(folder / name)
    try:
        read_session(folder)
    except ResultsError as error:
        raise SessionError(f"on {platform.node()}: {first_lines(str(error))}") from None
    facts = {
        "campaign": task.campaign,
        "session": task.session,
        "set": task.set,
        "repetition": task.repetition,
        "parameters": task.parameters,
        "code": task.code,
        "host": platform.node(),
        "machine": machine(),
        "visible_gpus": visible_gpus(),
        "started_s": started,
        "finished_s": time.time(),
    }
    write_file(folder / FACTS, json.dumps(facts, indent=2).encode())
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _check_worker(task: Task) -> None:
    if code_hash(task.notebook) != task.code:
        raise SessionError(
            f"on {platform.node()}: the project in {ROOT} is not the one that the plan was read "
            "with: bring both to the same commit"
        )
    gpus = visible_gpus()
    if len(gpus) > 1 and task.parameters.get("device") != "cpu":
        raise SessionError(
            f"on {platform.node()}: this worker sees {len(gpus)} GPUs, and another worker may use "
            "the same: start one worker per GPU, each with its own CUDA_VISIBLE_DEVICES"
        )


def first_lines(text: str) -> str:
    """The first lines of an error that say something, on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" -")]
    return " | ".join(lines[:ERROR_LINES])[:500]
