"""The notebook's sessions through papermill: two at once, killed at random moments, refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image
from result_rows import opened, snapshot, state_of

from helpers.results import ResultsError, load_samples, read_results

ROOT = Path(__file__).resolve().parents[2]
RUNS = 3
SMALL = {"device": "cpu", "dataset": "synthetic", "runs": RUNS, "warmup_iters": 5}
SMALL |= {"measure_iters": 40, "eval_images": 100, "isolation": "none"}


def start(results_dir: Path, session: str) -> subprocess.Popen:
    """Start papermill on the notebook as `make benchmark` does, in a process group of its own."""
    executed = results_dir.parent / f"{session}.ipynb"
    command = [Path(sys.executable).with_name("papermill"), ROOT / "J1_benchmark.ipynb", executed]
    for name, value in {**SMALL, "results_dir": results_dir, "session": session}.items():
        command += ["-p", name, str(value)]
    return subprocess.Popen(
        [*command, "--no-progress-bar"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill(process: subprocess.Popen, kernel: bool) -> None:
    """kill -9 papermill, or its kernel; wait until both have ended."""
    running = psutil.Process(process.pid).children(recursive=True)
    kernels = [child for child in running if "ipykernel_launcher" in " ".join(child.cmdline())]
    (kernels[0] if kernel else process).send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    psutil.wait_procs(kernels, timeout=30)  # one without papermill notices it and ends


def read_png(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


READERS = {".csv": read_results, ".npz": load_samples, ".png": read_png}
READERS |= {".json": lambda path: json.loads(path.read_text(encoding="utf8"))}


def check_session(folder: Path) -> int:
    """Every file is whole, every run has its samples, in order; returns how many runs."""
    for path in folder.glob("[!.]*.*"):
        READERS[path.suffix](path)
    runs = read_results(rows)["run"].tolist() if (rows := folder / "results.csv").exists() else []
    assert runs == list(range(1, len(runs) + 1))
    assert len(list(folder.glob("run_*.npz"))) - len(runs) in (0, 1)  # samples before their row
    if (folder / "session.json").exists() and state_of(folder) == "complete":
        assert len(runs) == RUNS
    return len(runs)


def test_two_sessions_at_once_then_some_killed_at_random_moments(tmp_path):
    results_dir, begun, chance = tmp_path / "results", time.monotonic(), random.Random(5)
    for process in [start(results_dir, name) for name in "ab"]:
        said = process.communicate(timeout=600)[1]
        assert process.returncode == 0, said[-2000:]
    assert [check_session(results_dir / name) for name in "ab"] == [RUNS, RUNS]
    lasts_s, kept = (time.monotonic() - begun) / 2, snapshot(results_dir)
    for name, kernel in (("c", False), ("d", True)):
        process, state = start(results_dir, name), results_dir / name / "session.json"
        while process.poll() is None and not state.exists():
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.7 * lasts_s))
        kill(process, kernel)
        check_session(state.parent)
        assert kept.items() <= snapshot(results_dir).items()  # what was there is still there
        with pytest.raises(ResultsError, match="already holds results"):
            opened(results_dir, name)
