"""Small stand-ins that several tests share."""

import numpy as np
from torch import nn

from helpers.bench_latency import NO_GPU, LatencyResult
from helpers.clocks.conditions import ConditionsSeen
from helpers.stats import summarise

AS_REQUIRED = ConditionsSeen(3, 3, False, True, False, False, False)


class TinyNet(nn.Module):
    """A model that is fast on a CPU and has a batch-norm, so that eval mode matters."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 10)

    def forward(self, x):
        return self.head(self.norm(x).mean((2, 3)))


def make_result(host_ms, gpu_ms=None, **changes) -> LatencyResult:
    """A LatencyResult around given samples (ms)."""
    fields = {
        "host": summarise(np.asarray(host_ms, dtype=float)),
        "gpu": None if gpu_ms is None else summarise(np.asarray(gpu_ms, dtype=float)),
        "gpu_unavailable": NO_GPU if gpu_ms is None else "",
        "gpu_unavailable_why": "no CUDA GPU" if gpu_ms is None else "",
        "warmup_ms": np.full(50, 2.0),
        "warmup_used": 50,
        "steady": True,
        "retried_batches": 0,
        "rejected_gpu_ms": np.zeros(0),
        "queued_forwards": 0 if gpu_ms is None else 12,
        "launch_ms": None if gpu_ms is None else 1.6,
        "wall_s": {"host": 1.0, "gpu": 0.0 if gpu_ms is None else 1.5},
        "batch_size": 1,
        "input_shape": (1, 3, 32, 32),
        "precision": "fp32",
        "device": "cpu" if gpu_ms is None else "cuda:0",
        "conditions": AS_REQUIRED,
    }
    return LatencyResult(**{**fields, **changes})
