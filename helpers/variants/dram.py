"""What reading the weights once from the GPU's memory would take: a scale beside the latencies."""

from dataclasses import dataclass

import torch
from torch import nn

from helpers.clocks import GpuClock
from helpers.stats import percentile
from helpers.variants import PARTS

COPIED_BYTES = 2**30  # twenty times the L2 cache of an H100, so that nothing is served from there
COPIES = 20


@dataclass(frozen=True)
class DramReference:
    """`weight_bytes` at a precision, the measured `bandwidth` (bytes/s), and their ratio in ms.

    It is no floor: weights that fit into the L2 cache stay there between calls.
    """

    weight_bytes: int
    bandwidth: float

    @property
    def ms(self) -> float:
        """Time to read all weights once at this bandwidth (ms)."""
        return 1e3 * self.weight_bytes / self.bandwidth


def weight_bytes(model: nn.Module, precision: str) -> int:
    """Bytes of all parameters stored in a precision; TF32 is stored as FP32."""
    return sum(p.numel() for p in model.parameters()) * PARTS[precision].apply.itemsize


def copy_bandwidth(device: torch.device, size: int = COPIED_BYTES) -> float:
    """Measure the GPU's memory: bytes read and written per second by a large copy (GPU clock).

    Raises
    ------
    RuntimeError
        The GPU clock's kernels cannot be compiled here, or the memory does not suffice.
    """
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    samples = GpuClock(device).measure(target.copy_, [source], COPIES).samples_ms
    return 2 * size / (percentile(samples, 0.5) / 1e3)


def dram_reference(model: nn.Module, precision: str, device: torch.device) -> DramReference | None:
    """Compare with reading the weights from memory; None on a CPU."""
    if device.type != "cuda":
        return None
    return DramReference(weight_bytes(model, precision), copy_bandwidth(device))
