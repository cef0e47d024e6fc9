"""One session of a campaign, on the machine that measures: the notebook through papermill."""

import hashlib
import json
import os
import platform
import time
from pathlib import Path

import papermill
import pynvml
from papermill.exceptions import PapermillExecutionError

from helpers.after.campaign.stored import (
    FACTS,
    Facts,
    SessionError,
    Task,
    first_lines,
    read_finished,
)

ROOT = Path(__file__).resolve().parents[3]
NOTEBOOK = "J1_benchmark.ipynb"
START_TIMEOUT_S = 300  # of a kernel, on a machine where many start at once
CELL_TIMEOUT_S = 7200  # a GPU that hangs must not hold its worker for ever


def code_hash(notebook: str = NOTEBOOK) -> str:
    """Fingerprint of what measures: the notebook's code cells and helpers/, campaigns' own apart.

    Stored outputs and prose do not count: they change no figure.
    """
    cells = json.loads((ROOT / notebook).read_text(encoding="utf8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    digest = hashlib.sha256(json.dumps(code).encode())
    for module in sorted((ROOT / "helpers").rglob("*.py")):
        name = module.relative_to(ROOT).as_posix()
        if not name.startswith("helpers/after/campaign/"):
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
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf8").strip()
    except OSError:
        return platform.node()


def measure(task: Task, notebook: str, scratch: Path) -> dict[str, bytes]:
    """Execute the notebook in `scratch` and return the session's folder, file by file.

    Raises
    ------
    SessionError
        The project on this machine is another one than the plan's, more than one GPU is visible,
        the notebook failed, or it left no complete session.
    """
    _check_worker(task, notebook)
    folder, name = scratch / task.session, Path(notebook).name
    folder.mkdir()
    started = time.time()
    try:
        papermill.execute_notebook(
            ROOT / notebook,
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
    facts = Facts(
        **task.model_dump(),
        host=platform.node(),
        machine=machine(),
        visible_gpus=visible_gpus(),
        started_s=started,
        finished_s=time.time(),
    )
    (folder / FACTS).write_text(facts.model_dump_json(indent=2), encoding="utf8")
    read_finished(folder, task)
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _check_worker(task: Task, notebook: str) -> None:
    if code_hash(notebook) != task.code:
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
