"""Warm-up that ends when it has ended: latencies and the GPU's clock have stopped moving."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch

from helpers.clocks.checks import phase
from helpers.clocks.timing import host_latencies
from helpers.environment.nvml import find_gpu, sm_clock_mhz

WARMUP_WINDOW = 25  # forwards; steady when two windows of this many agree
WARMUP_MAX_ITERS, WARMUP_MAX_S = 200, 60.0
STEADY_TOLERANCE = 0.05  # relative difference of two windows' medians, and of their SM clocks


@dataclass(frozen=True)
class Warmup:
    """Host latencies (n,) of the warm-up in ms, and whether they and the SM clock had settled."""

    samples_ms: np.ndarray
    steady: bool


def warm_up(
    call: Callable, inputs: Sequence[torch.Tensor], warmup_iters: int, device: torch.device
) -> Warmup:
    """Run until `warmup_iters` forwards are done and all is steady.

    Steady or not, it ends after 60 s, or after 200 forwards (`warmup_iters`, if that is more).
    """
    handle, windows, clocks_mhz = find_gpu(device)[0], [], []
    done, start = 0, perf_counter()
    while done < warmup_iters or not _steady(windows, clocks_mhz):
        if done >= max(warmup_iters, WARMUP_MAX_ITERS) or perf_counter() - start > WARMUP_MAX_S:
            break
        count = min(WARMUP_WINDOW, warmup_iters)
        with phase("warm-up"):
            windows.append(host_latencies(call, inputs, count, device))
        clocks_mhz.append(sm_clock_mhz(handle))
        done += count
    return Warmup(np.concatenate(windows), _steady(windows, clocks_mhz))


def _steady(windows: list[np.ndarray], clocks_mhz: list[int | None]) -> bool:
    pairs = [tuple(map(np.median, windows[-2:]))]
    if None not in clocks_mhz[-2:]:  # a clock that cannot be seen is not waited for
        pairs.append(tuple(clocks_mhz[-2:]))
    return len(windows) > 1 and all(abs(now - old) <= STEADY_TOLERANCE * old for old, now in pairs)
