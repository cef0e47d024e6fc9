"""One profiled pass, apart from any timing: which kernels ran, and did anything cross the bus."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import sleep

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from helpers.clocks.checks import move_inputs
from helpers.clocks.conditions import measuring_conditions
from helpers.clocks.kernels import synchronizer
from helpers.environment.compile import quiet
from helpers.environment.facts import first_line

PROFILED_FORWARDS = 10


@dataclass(frozen=True)
class ForwardProfile:
    """What the GPU did during some forwards."""

    forwards: int
    kernels: float  # per forward
    kernel_ms: float  # sum of their durations, per forward
    host_to_device: int  # copies in all forwards
    device_to_host: int
    kernel_names: tuple[str, ...]  # without repeats


@contextmanager
def detached_profile(device: torch.device) -> Iterator[profile]:
    """Profile what is inside, then detach CUPTI, NVIDIA's tracing library, from the process.

    torch leaves it attached (https://github.com/pytorch/pytorch/issues/144455), and every later
    launch pays for it. Told to tear down, Kineto does so in a thread of its own when some CUDA call
    returns: hence the calls at the end, before it is told otherwise.
    """
    synchronize, before = synchronizer(device), os.environ.get("TEARDOWN_CUPTI")
    os.environ["TEARDOWN_CUPTI"] = "1"
    try:
        activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        with quiet(), profile(activities=activities, acc_events=True) as prof:
            yield prof
            synchronize()
    finally:
        with suppress(RuntimeError):  # of the GPU itself: what raised first is told
            for _ in range(50):
                synchronize()
                sleep(0.002)
        os.environ["TEARDOWN_CUPTI"] = before or "0"
        if before is None:
            del os.environ["TEARDOWN_CUPTI"]


def try_profile(
    model: Callable, dataloader: Iterable, device: torch.device, precision: str = "fp32"
) -> tuple[ForwardProfile | None, str]:
    """Profile warm forwards as in the timed loop; None on a CPU, or with why it cannot be."""
    if device.type != "cuda":
        return None, ""
    try:
        inputs = move_inputs(dataloader, device)
        with measuring_conditions(model, precision):
            model(inputs[0])
            synchronizer(device)()
            with detached_profile(device) as prof:
                for i in range(PROFILED_FORWARDS):
                    model(inputs[i % len(inputs)])
        return summarise_events(_gpu_events(prof), PROFILED_FORWARDS), ""
    except Exception as error:  # CUPTI's user is another one, WSL2, no permission, the model …
        return None, first_line(error)


def count_kernels(call: Callable, batch, device: torch.device) -> int | None:
    """How many kernels one call launches, under the conditions in force; None: not observable."""
    with suppress(Exception):  # beside the measurement
        with detached_profile(device) as prof:
            torch.ones(1, device=device)  # one kernel more: a profiler that sees none sees nothing
            call(batch)
        seen = len(_gpu_events(prof))
        return seen - 1 if seen else None
    return None


def _gpu_events(prof: profile) -> list[tuple[str, float]]:
    """(name, ms) of what ran on the GPU."""
    events = (e for e in prof.events() if e.device_type == DeviceType.CUDA)
    events = (e for e in events if not e.is_user_annotation)  # a `record_function` is no kernel
    return [(e.name, e.device_time / 1e3) for e in events]


def contradicted(gpu_p50_ms: float, kernel_ms: float) -> bool:
    """Did the GPU clock miss work, on a stream that it does not watch?

    Its median is then below half of what the kernels take: those on two streams may overlap.
    """
    return gpu_p50_ms < kernel_ms / 2


def summarise_events(events: list[tuple[str, float]], forwards: int) -> ForwardProfile:
    """Sort GPU events (name, ms) into kernels and copies; RuntimeError where there is no kernel."""
    copies = [name for name, _ in events if name.startswith("Memcpy")]
    kernels = [(n, ms) for n, ms in events if not n.startswith(("Memcpy", "Memset"))]
    if not kernels:
        raise RuntimeError("the profiler saw no GPU kernel: close other profilers (CUPTI has one)")
    return ForwardProfile(
        forwards=forwards,
        kernels=len(kernels) / forwards,
        kernel_ms=sum(ms for _, ms in kernels) / forwards,
        host_to_device=sum("HtoD" in name for name in copies),
        device_to_host=sum("DtoH" in name for name in copies),
        kernel_names=tuple(dict.fromkeys(name for name, _ in kernels)),
    )
