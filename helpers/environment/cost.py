"""What a session cost: wall time and peak memory."""

import resource
import sys
import time

import psutil
import torch

from helpers.environment.facts import attempt


def session_cost(device: torch.device | str | None = None) -> dict[str, float | None]:
    """Seconds since this process started, its peak memory on the host and on `device` (MiB).

    `device` is the one that was measured, by default CUDA's current one; None: cannot be seen.
    """
    cuda = torch.cuda.is_initialized() and torch.device(device or "cuda").type == "cuda"
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes in one unit of ru_maxrss
    gpu = attempt(torch.cuda.max_memory_allocated, device) if cuda else None
    return {
        "wall_s": attempt(lambda: time.time() - psutil.Process().create_time()),
        "peak_host_mib": attempt(
            lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
        ),
        "peak_gpu_mib": None if gpu is None else gpu / 2**20,
    }
