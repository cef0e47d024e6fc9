"""What reading the weights once from the GPU's memory would take: a scale beside the latencies."""

import torch
from torch import nn

from helpers.annex.variants import PARTS
from helpers.clocks import GpuClock
from helpers.display.french import number
from helpers.environment.facts import first_line
from helpers.stats import percentile

COPIED_BYTES = 2**28  # five times the L2 cache of an H100: little can be served from there
COPIES = 20


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


def dram_sentences(model: nn.Module, device: torch.device) -> list[str]:
    """Say in French what reading the weights once would take; nothing on a CPU."""
    if device.type != "cuda":
        return []
    try:
        bandwidth = copy_bandwidth(device)
    except RuntimeError as error:  # torch.OutOfMemoryError among them
        return [f"Bande passante de la mémoire du GPU non mesurée ({first_line(error)})."]
    told = []
    for precision in ("fp32", "fp16"):
        size = weight_bytes(model, precision)
        ms = number(1e3 * size / bandwidth)
        told.append(f"{ms} ms en {precision.upper()} ({number(size / 1e6, 3)} Mo)")
    return [
        f"Repère : lire une fois tous les poids dans la mémoire du GPU prendrait {told[0]} ou "
        f"{told[1]}, à la bande passante d'une copie mesurée ici ({number(bandwidth / 1e12, 3)} "
        "To/s, octets lus et écrits). Ce n'est pas un plancher : des poids restés dans le cache L2 "
        "se lisent plus vite."
    ]
