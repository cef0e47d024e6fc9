"""Complete sessions written file by file, as they lie on disk, around given samples."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.stats import summarise

MACHINE = {
    "gpu": {"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1"},
    "software": {"python": "3.12.3", "torch": "2.11.0+cu130", "torchvision": "0.26.0"},
    "cuda": {"torch_cuda": "13.0", "driver": "580.1", "cudnn": "9.19"},
    "cpu": {"model": "A CPU", "torch_threads": 1},
    "git": {"commit": "abc", "dirty": False},
}
FIGURES = ("mean", "p95", "p50", "std", "min", "max")


def row_of(host_ms, gpu_ms=None, run=1, **changes) -> dict:
    """The row of one run around its samples (ms); `session` is added by write_session."""
    host, gpu = (
        None if ms is None else summarise(np.asarray(ms, float)) for ms in (host_ms, gpu_ms)
    )
    return {
        **{"variant": "fp32", "accuracy": 0.1},
        **{f"lat_{name}": getattr(gpu or host, name) for name in FIGURES},
        **{"lat_p95_low": None, "lat_p95_high": None, "clock": "gpu" if gpu else "host"},
        **{"host_mean": host.mean, "host_p95": host.p95},
        **{"gpu_mean": gpu and gpu.mean, "gpu_p95": gpu and gpu.p95, "run": run},
        **{"timestamp": "2026-11-24T21:40:00+01:00", "precision": "fp32", "batch_size": 1},
        **{"input_shape": "1x3x32x32", "warmup_iters": 50, "warmup_used": 75},
        **{"measure_iters": 500, "schedule": "consecutive", "retried_batches": 0},
        **{"device": "cuda:0" if gpu else "cpu", "gpu_name": MACHINE["gpu"]["name"]},
        **{"torch_version": "2.11.0+cu130", "cuda_version": "13.0", "dataset": "synthetic"},
        **{"eval_images": 100, "flags": ""},
        **changes,
    }


def write_session(
    results, name, runs, machine=MACHINE, parameters=None, sentences=("ACCEPTÉ",), **files
) -> Path:
    """Write `runs`, pairs of a row and its samples by name, as the complete session `name`.

    `files`: more JSON files, by stem.
    """
    folder = Path(results) / name
    folder.mkdir(parents=True, exist_ok=True)
    rows = pd.DataFrame([row for row, _ in runs]).assign(session=name)
    rows.to_csv(folder / "results.csv", index=False)
    for number, (_, samples) in enumerate(runs, start=1):
        np.savez_compressed(folder / f"run_{number}.npz", **samples)
    files |= {
        "environment": machine,
        "parameters": parameters or {},
        "verdict": {"sentences": sentences, "accepted": True},
        "session": {"schema": 1, "session": name, "state": "complete"},
    }
    for stem, content in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
