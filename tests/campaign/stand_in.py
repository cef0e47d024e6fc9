"""A notebook that takes a moment instead of a minute, and leaves a session like the real one's."""

import os
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from helpers.results import open_session

FAILING_SEED = 13


def row(session: str, run: int, p95: float, **changes) -> dict:
    """One run's row, with this p95 (ms) on the deciding clock."""
    values = {
        **{"variant": "fp32", "accuracy": 0.1, "timestamp": "2026-11-24T21:40:00+01:00"},
        **{"run": run, "clock": "gpu", "lat_std": 0.01, "lat_min": 0.0, "lat_max": 2 * p95},
        **{"lat_mean": 0.9 * p95, "lat_p50": 0.9 * p95, "lat_p95": p95},
        **{"lat_p95_low": None, "lat_p95_high": None, "host_mean": 1.9, "host_p95": 2.5},
        **{"gpu_mean": 0.9 * p95, "gpu_p95": p95, "precision": "fp32", "batch_size": 1},
        **{"input_shape": "1x3x32x32", "warmup_iters": 50, "warmup_used": 75},
        **{"measure_iters": 500, "schedule": "consecutive", "retried_batches": 0},
        **{"device": "cuda:0", "gpu_name": "NVIDIA H100 80GB HBM3", "torch_version": "2.11.0"},
        **{"cuda_version": "13.0", "dataset": "synthetic", "eval_images": 50, "flags": ""},
    }
    return {**values, "session": session, **changes}


def environment(**changes) -> dict:
    """What a campaign reads of environment.json."""
    return {
        "software": {"python": "3.12.3", "torch": "2.11.0", "torchvision": "0.26.0"},
        "cuda": {"driver": None, "cudnn": None},
        "gpu": None,
        "cpu": {"model": "a processor", "torch_threads": 1},
        "git": {"commit": "abc", "dirty": False},
        **changes,
    }


def write_session(results_dir, session: str, p95=(1.31, 1.32), env=None, **changes) -> Path:
    """A complete session, one run per p95 (ms)."""
    recording = open_session(results_dir, session)
    recording.save_environment(env or environment())
    for run, value in enumerate(p95, start=1):
        recording.add_run(row(session, run, value, **changes), {"host_ms": [1.0, 2.0]})
    recording.save_json("verdict", {"sentences": ["ACCEPTÉ"], "accepted": True})
    recording.complete()
    return recording.folder


def measure(results_dir: str, session: str, seed: int) -> None:
    """What the stand-in's cell does: fail for one seed, else take a moment, and say so in a log.

    `torch_threads` carries OMP_NUM_THREADS as the kernel sees it, 0 where it is not set.
    """
    if seed == FAILING_SEED:
        raise RuntimeError(f"no GPU likes seed {seed}")
    time.sleep(float(os.environ.get("STAND_IN_S", "0")))
    pinned = os.environ.get("CUDA_VISIBLE_DEVICES")
    threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    told = environment(
        gpu=pinned and {"name": "GPU", "uuid": pinned},
        cpu={"model": "a processor", "torch_threads": threads},
    )
    write_session(results_dir, session, env=told)
    if log := os.environ.get("STAND_IN_LOG"):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{session}\n")


def write_notebook(path: Path) -> Path:
    parameters = new_code_cell('session = ""\nresults_dir = ""\nseed = 0')
    parameters.metadata["tags"] = ["parameters"]
    code = "from tests.campaign.stand_in import measure\nmeasure(results_dir, session, seed)"
    notebook = new_notebook(cells=[parameters, new_code_cell(code)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, path)
    return path
