"""Whole sessions through papermill, and what must hold of a results folder at any moment."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from PIL import Image
from result_rows import state_of

from helpers.results import PUBLISHED, load_samples, read_results

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "J1_benchmark.ipynb"
RUNS = 3
SMALL = {
    "device": "cpu",
    "dataset": "synthetic",
    "runs": RUNS,
    "warmup_iters": 5,
    "measure_iters": 40,
    "eval_images": 100,
}


def start(results_dir: Path, session: str, **parameters) -> subprocess.Popen:
    """Start papermill on the notebook as `make benchmark` does, in a process group of its own."""
    given = {**SMALL, "results_dir": results_dir, "session": session, **parameters}
    executed = results_dir.parent / f"{session}.ipynb"
    command = [Path(sys.executable).with_name("papermill"), NOTEBOOK, executed, "--no-progress-bar"]
    for name, value in given.items():
        command += ["-p", name, str(value)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> None:
    """Wait for a session that must succeed."""
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said[-2000:]


def kernel_of(process: subprocess.Popen) -> psutil.Process | None:
    """The kernel that papermill has started, if it has yet."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "ipykernel_launcher" in " ".join(child.cmdline()):
                    return child
    return None


def kill(process: subprocess.Popen, victim: str) -> None:
    """kill -9 papermill, or its kernel where there is one; wait for all of it."""
    kernel = kernel_of(process)
    if victim == "kernel" and kernel is not None:
        kernel.send_signal(signal.SIGKILL)
    else:
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    # A kernel without papermill notices it and ends; what it wrote until then must be whole too.
    deadline = time.monotonic() + 30
    while kernel is not None and kernel.is_running() and time.monotonic() < deadline:
        if kernel.status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def check_whole(results_dir: Path) -> None:
    """Read every file of every session; a broken one raises."""
    readers = {".csv": read_results, ".npz": load_samples, ".json": _json, ".png": _png}
    for path in results_dir.rglob("*.*"):
        if path.is_file() and not path.name.startswith("."):
            readers[path.suffix](path)


def _json(path: Path):
    return json.loads(path.read_text(encoding="utf8"))


def _png(path: Path):
    with Image.open(path) as image:
        image.load()


def check_session(folder: Path) -> int:
    """Every run with its samples, in order, under the session's own name; returns how many."""
    samples = sorted(folder.glob("run_*.npz"))
    rows = folder / "results.csv"
    kept = read_results(rows) if rows.exists() else None
    runs = [] if kept is None else kept["run"].tolist()
    assert runs == list(range(1, len(runs) + 1))
    assert len(samples) - len(runs) in (0, 1)  # a run's samples are written before its row
    assert kept is None or set(kept["session"]) == {folder.name}
    if (folder / "session.json").exists() and state_of(folder) == "complete":
        assert len(runs) == RUNS
    return len(runs)


def check_published(results_dir: Path) -> str:
    """The published rows are those of one complete session; returns its name, "" if none."""
    path = results_dir / PUBLISHED
    if not path.exists():
        return ""
    published = read_results(path)
    (name,) = set(published["session"])
    assert state_of(results_dir / name) == "complete"
    assert path.read_bytes() == (results_dir / name / "results.csv").read_bytes()
    return name


def two_at_once(results_dir: Path) -> None:
    """Run two sessions at once in one folder: no row is lost or mixed."""
    names = ["a", "b"]
    for process in [start(results_dir, name) for name in names]:
        finish(process)
    assert [check_session(results_dir / name) for name in names] == [RUNS, RUNS]
    assert check_published(results_dir) in names
    check_whole(results_dir)
