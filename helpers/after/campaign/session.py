"""One session of a campaign: what is asked, how it is measured, and what is read back from it."""

import hashlib
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import papermill
from papermill.exceptions import PapermillExecutionError

from helpers.environment.facts import Reader, first_line
from helpers.environment.nvml import collect_driver
from helpers.results import ResultsError, read_session
from helpers.results.files import read_file

ROOT = Path(__file__).resolve().parents[3]
NOTEBOOK = "J1_benchmark.ipynb"
# Many kernels may start at once; a GPU that hangs must not hold its worker for ever (seconds).
PAPERMILL = {"start_timeout": 300, "execution_timeout": 7200, "progress_bar": False, "cwd": ROOT}
FACTS = "campaign.json"  # who measured where and when, beside the session's own files


@dataclass(frozen=True)
class Task:
    """What a worker is asked to measure."""

    campaign: str
    session: str
    set: int
    repetition: int
    parameters: dict[str, Any]  # of the notebook, all of them but session and results_dir
    code: str  # what `code_hash` must say on the worker


def code_hash(notebook: str = NOTEBOOK) -> str:
    """Fingerprint of what measures: the notebook's code cells and helpers/, without campaign/."""
    cells = json.loads((ROOT / notebook).read_text(encoding="utf8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for module in sorted((ROOT / "helpers").rglob("*.py")):
        if module.parent != ROOT / "helpers/after/campaign":
            code += [module.relative_to(ROOT).as_posix(), module.read_text(encoding="utf8")]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def visible_gpus() -> list[str]:
    """The GPUs that CUDA would show to a process started here, as CUDA_VISIBLE_DEVICES names them.

    UUIDs where nothing is set: CUDA and NVML may number the same GPUs differently.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [gpu["uuid"] for gpu in collect_driver(Reader())["gpus"]]
    return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]


def measure(task: Task, notebook: str, scratch: Path) -> dict[str, bytes]:
    """Execute the notebook in `scratch`; the session's folder, file by file, or a RuntimeError."""
    gpus, folder, name = visible_gpus(), scratch / task.session, Path(notebook).name
    given = task.parameters | {"session": task.session, "results_dir": str(scratch)}
    try:
        if code_hash(notebook) != task.code:
            raise ValueError(f"the project in {ROOT} is not the plan's: bring both to one commit")
        if len(gpus) > 1 and given.get("device") != "cpu":
            raise ValueError(f"{len(gpus)} GPUs are visible: give each a worker of its own")
        folder.mkdir()
        facts = {"host": platform.node(), "visible_gpus": gpus, "started_s": time.time()}
        # papermill rewrites the hidden file after each cell
        papermill.execute_notebook(ROOT / notebook, folder / f".{name}", given, **PAPERMILL)
        facts["finished_s"] = time.time()
        (folder / f".{name}").rename(folder / name)
        (folder / FACTS).write_text(json.dumps(asdict(task) | facts, indent=2), encoding="utf8")
        read_finished(folder, task)
    except Exception as error:  # whatever it is must travel as text
        told = f"{type(error).__name__}: {error}"
        if isinstance(error, PapermillExecutionError):
            told = f"cell [{error.exec_count}]: {error.ename}: {error.evalue}"
        raise RuntimeError(f"on {platform.node()}: {told}") from None
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def read_finished(folder: Path, task: Task) -> list[dict[str, Any]]:
    """A session's rows, where and with what it was measured before them; ResultsError if none."""
    try:
        facts, session = json.loads(read_file(folder / FACTS)), read_session(folder)
        for name, asked in asdict(task).items():
            if facts[name] != asked:
                raise ValueError(f"{name} is {facts[name]!r}, not {asked!r}")
        found = session.environment
        gpu_uuid = (found["gpu"] or {}).get("uuid")
        texts = {"host": facts["host"], "cpu": found["cpu"]["model"], "gpu_uuid": gpu_uuid}
        added = {
            **{"campaign": task.campaign, "set": task.set, "repetition": task.repetition},
            **{name: str(text or "") for name, text in texts.items()},
            **{name: float(facts[name]) for name in ("started_s", "finished_s")},
            "torch_threads": int(found["cpu"]["torch_threads"]),
            "parameters": json.dumps(task.parameters, sort_keys=True),
        }
    except Exception as error:  # foreign files fail in dozens of ways; none may stop a campaign
        told = f"is no finished session of this plan: {first_line(error)}"
        raise ResultsError(f"{folder.name} {told}") from None
    return [added | row for row in session.rows.to_dict("records")]
