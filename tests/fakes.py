"""Small stand-ins that several tests share."""

import numpy as np
from looks_fake import PROCESS, look
from torch import nn

from helpers.bench_latency import BLOCK, NO_GPU, Run
from helpers.clocks.conditions import ConditionsSeen
from helpers.clocks.warmup import Warmup
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


class Bomb:
    """Pickled, it runs code of its own where it is read: `went_off` then lies in the folder."""

    def __reduce__(self):
        return (open, ("went_off", "w"))


def leave(x):
    """Case 5: a forward that ends Python."""
    raise SystemExit(0)


def series(level, seed=0, n=500, sd=0.01):
    """Samples (n,) around a level, of a relative standard deviation."""
    return level * (1 + sd * np.random.default_rng(seed).standard_normal(n))


def make_run(host_ms, gpu_ms=None, **changes) -> Run:
    """A Run around given samples (ms), looked at without anything to be seen."""
    block = changes.get("block", BLOCK)
    fields = {
        "host": summarise(np.asarray(host_ms, dtype=float)),
        "gpu": None if gpu_ms is None else summarise(np.asarray(gpu_ms, dtype=float)),
        "no_gpu_clock": NO_GPU if gpu_ms is None else "",
        "no_gpu_clock_why": "no CUDA GPU" if gpu_ms is None else "",
        "rejected_gpu_ms": np.zeros(0),
        "retried_batches": 0,
        "warmup": Warmup(np.full(50, 2.0), steady=True),
        "conditions": AS_REQUIRED,
        "looks": tuple(look(float(at)) for at in range(-(-len(host_ms) // block) + 1)),
        "process": PROCESS,
        "precision": "fp32",
        "input_shape": (1, 3, 32, 32),
        "device": "cpu" if gpu_ms is None else "cuda:0",
    }
    return Run(**{**fields, **changes})
