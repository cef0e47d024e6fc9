"""One run as a row of the results CSV, and its raw samples as arrays to keep."""

from datetime import datetime
from typing import Any

import numpy as np

from helpers.bench_latency import LatencyResult
from helpers.parameters import Parameters
from helpers.validation import CONTRADICTED, deciding_clock
from helpers.validation.causes import interval


def run_row(
    result: LatencyResult,
    *,
    run: int,
    parameters: Parameters,
    environment: dict,
    dataset: str,
    accuracy: float | None,
    eval_images: int,
    session: str,
    variant: str = "fp32",
    precision: str = "",
    schedule: str = "consecutive",
    flags: tuple[str, ...] = (),
    doubt: str = "",
) -> dict[str, Any]:
    """Lay a run out in the columns of the results; None where a figure does not exist.

    `lat_*` carry the deciding clock, named in `clock`; both clocks stand in host_* and gpu_*.
    `precision` is the result's own unless given: a variant computes in FP16 under the switches of
    strict FP32. `doubt`: what `doubt_of` says of the run's GPU clock.
    """
    clock = "host" if doubt == CONTRADICTED else deciding_clock(parameters.clock, [result])
    decisive, gpu = getattr(result, clock), result.gpu
    low, high = interval(decisive) or (None, None)
    return {
        "variant": variant,
        "accuracy": accuracy,
        "lat_mean": decisive.mean,
        "lat_p95": decisive.p95,
        "timestamp": datetime.now().astimezone().isoformat(timespec="seconds"),
        "run": run,
        "clock": clock,
        "lat_std": decisive.std,
        "lat_min": decisive.min,
        "lat_max": decisive.max,
        "lat_p50": decisive.p50,
        "lat_p95_low": low,
        "lat_p95_high": high,
        "host_mean": result.host.mean,
        "host_p95": result.host.p95,
        "gpu_mean": gpu.mean if gpu else None,
        "gpu_p95": gpu.p95 if gpu else None,
        "precision": precision or result.precision,
        "batch_size": result.batch_size,
        "input_shape": "x".join(map(str, result.input_shape)),
        "warmup_iters": parameters.warmup_iters,
        "warmup_used": result.warmup_used,
        "measure_iters": parameters.measure_iters,
        "schedule": schedule,
        "retried_batches": result.retried_batches,
        "device": result.device,
        "gpu_name": environment["gpu"]["name"] if environment["gpu"] else "",
        "torch_version": environment["software"]["torch"],
        "cuda_version": environment["cuda"]["torch_cuda"] or "",
        "dataset": dataset,
        "eval_images": eval_images,
        "session": session,
        "flags": ";".join(filter(None, (*_own_flags(result), doubt, *flags))),
    }


def _own_flags(result: LatencyResult) -> list[str]:
    """What the run itself says against its figures."""
    seen = {
        "unsteady_warmup": not result.steady,
        "conditions_not_met": not result.conditions.required_for(result.precision),
        "gpu_clock_unavailable": result.gpu is None and result.device.startswith("cuda"),
        "retried_batches": result.retried_batches > 0,
    }
    return [name for name, raised in seen.items() if raised]


def run_samples(result: LatencyResult) -> dict[str, np.ndarray]:
    """Every raw sample of a run in ms: measured, warm-up, and rejected but kept."""
    samples = {"host_ms": result.host.samples_ms, "warmup_ms": result.warmup_ms}
    if result.gpu is not None:
        samples["gpu_ms"] = result.gpu.samples_ms
    if result.gpu is not None or result.rejected_gpu_ms.size:
        samples["rejected_gpu_ms"] = result.rejected_gpu_ms
    return samples
