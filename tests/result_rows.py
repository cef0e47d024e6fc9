"""A valid row of the results with samples, and what a results folder holds."""

import json

import numpy as np

from helpers.results.files import LOCK

SAMPLES = {"host_ms": np.array([2.0, 2.5, 1.75]), "warmup_ms": np.array([900.0, 2.0])}


def row(session="s", **changes):
    values = {
        "variant": "resnet18",
        "accuracy": 0.0981,
        "lat_mean": 1.3072,
        "lat_p95": 1.31,
        "timestamp": "2026-11-24T21:40:00.123456+01:00",
        "run": 1,
        "clock": "gpu",
        "lat_std": 0.01,
        "lat_min": 1.29,
        "lat_max": 1.4,
        "lat_p50": 1.306,
        "lat_p95_low": None,
        "lat_p95_high": None,
        "host_mean": 1.9,
        "host_p95": 1.0 / 3.0,
        "gpu_mean": 1.3072,
        "gpu_p95": 1.31,
        "precision": "fp32",
        "batch_size": 1,
        "input_shape": "1x3x32x32",
        "warmup_iters": 50,
        "warmup_used": 75,
        "measure_iters": 500,
        "schedule": "consecutive",
        "retried_batches": 0,
        "device": "cuda:0",
        "gpu_name": "NVIDIA H100 80GB HBM3",
        "torch_version": "2.14.1+cu130",
        "cuda_version": "13.0",
        "dataset": "cifar10",
        "eval_images": 10000,
        "session": session,
        "flags": "",
    }
    return values | changes


def snapshot(folder):
    """Every file under a folder, hidden ones too, but for the lock: {relative path: bytes}."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK
    }


def state_of(folder):
    return json.loads((folder / "session.json").read_text())["state"]
