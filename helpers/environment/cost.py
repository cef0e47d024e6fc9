"""What a session cost: wall time and peak memory."""

import resource
import time

import psutil
import torch


def session_cost() -> dict[str, float | None]:
    """Seconds since this process started, and its peak memory on the host and the GPU (MiB)."""
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else None
    return {
        "wall_s": time.time() - psutil.Process().create_time(),
        "peak_host_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_gpu_mib": gpu,
    }
