"""One look at who is on the GPU and the CPU: raw counters of NVML, the system and this process.

A value of None, or an empty answer while we compute, means "not observable here", never "clean".
"""

import multiprocessing
import os
import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from helpers.environment.facts import Reader, attempt
from helpers.environment.nvml import (
    CLOCK_MEMORY,
    CLOCK_SM,
    POLICY_POWER,
    POLICY_THERMAL,
    TEMPERATURE_GPU,
    nvml_handle,
    query,
)


@dataclass(frozen=True)
class GpuReading:
    """What NVML says; clocks in MHz, temperature in °C, power in W; None: not observable."""

    processes: frozenset[int] | None  # pids with a context on this GPU, ours among them
    shares: tuple[tuple[int, int], ...] | None  # (pid, SM %) samples since the last look
    sm_mhz: int | None
    memory_mhz: int | None
    reasons: int | None  # bit mask of clock-event reasons
    power_limited_s: float | None  # counters: seconds held back by each policy
    thermal_limited_s: float | None
    temperature_c: int | None
    power_w: float | None


@dataclass(frozen=True)
class HostReading:
    """Counters of the system and of this process; seconds of CPU time, summed over the CPUs."""

    at_s: float  # when these counters were read (perf_counter)
    own_s: float  # this process, all threads
    thread_s: float  # the measuring thread
    busy_s: float | None  # whole system, this process included, without idle, waiting and stolen
    core: int | None  # the one we are on
    steal_s: dict[int, float] | None  # by core: wanted by this virtual machine, given to another
    preemptions: int | None  # of the measuring thread: involuntary context switches


@dataclass(frozen=True)
class Look:
    """One look: when it began and ended (s, perf_counter), what was read, why the rest was not."""

    start_s: float
    end_s: float
    gpu: GpuReading | None  # None: no GPU is watched, or NVML is not there
    host: HostReading
    failed: dict[str, str]


@dataclass(frozen=True)
class Process:
    """The process that measures: its pids, and how many CPUs the system counts.

    `own`: ours and the spawning process's, in every namespace that we know of. `spawned`: another
    process of ours started this one, and may hold a context on the GPU.
    """

    pid: int
    own: frozenset[int]
    spawned: bool
    cpus: int


def this_process() -> Process:
    """Say which process this is."""
    spawned = multiprocessing.parent_process() is not None
    return Process(os.getpid(), own_pids(), spawned, attempt(psutil.cpu_count) or 1)


class Looker:
    """Takes looks at a device's GPU and at the host: one for each run, made before its first."""

    def __init__(self, device: torch.device | str):
        self._handle, self._last_seen = nvml_handle(torch.device(device)), 0
        self()  # NVML hands out its whole buffer once: what happened before this run

    def __call__(self) -> Look:
        """Take one look; what cannot be read is None, and nothing is raised."""
        start, gpu, read = time.perf_counter(), None, Reader()
        if self._handle is not None:
            found = read("shares", utilisation_samples, self._handle, self._last_seen)
            shares, self._last_seen = found or (None, self._last_seen)
            gpu = read_gpu(self._handle, shares, read)
        host = read_host(read)
        return Look(start, time.perf_counter(), gpu, host, read.failed)


def own_pids() -> frozenset[int]:
    """Our pid, and that of the process that spawned us, in every namespace that /proc shows.

    NVML may know us by the host's pid; a notebook is no stranger to its fresh processes.
    """
    parent = multiprocessing.parent_process()
    ours = {os.getpid()} | ({parent.pid} if parent else set())
    status = [attempt(Path(f"/proc/{pid}/status").read_text) or "" for pid in ours]
    found = re.findall(r"^NSpid:(.*)$", "\n".join(status), re.MULTILINE)
    return frozenset(ours | {int(pid) for line in found for pid in line.split()})


def utilisation_samples(handle: Any, since: int) -> tuple[tuple, int]:
    """Per-process SM samples newer than the timestamp `since`: ((pid, SM %), ...), newest stamp.

    Raises what NVML raises where this is not supported or not permitted; no sample is no error.
    """
    try:
        samples = query("nvmlDeviceGetProcessUtilization", handle, since)
    except Exception as error:
        if type(error).__name__ == "NVMLError_NotFound":
            return (), since
        raise
    # Drivers sometimes return unused entries, with no time stamp or a share above 100 %.
    valid = [s for s in samples if s.timeStamp > since and s.smUtil <= 100]
    newest = max((s.timeStamp for s in valid), default=since)
    return tuple((s.pid, s.smUtil) for s in valid), newest


def read_gpu(handle: Any, shares: tuple | None, read: Reader) -> GpuReading:
    """Read what NVML says now; `shares` are the samples that the caller has already fetched."""

    def nvml(key: str, name: str, *args: int) -> Any:
        return read(key, query, name, handle, *args)

    def limited_s(key: str, policy: int) -> float | None:
        status = nvml(key, "nvmlDeviceGetViolationStatus", policy)
        return attempt(lambda: status.violationTime / 1e9)

    power = nvml("power", "nvmlDeviceGetPowerUsage")
    return GpuReading(
        processes=read("processes", _processes, handle),
        shares=shares,
        sm_mhz=nvml("sm_clock", "nvmlDeviceGetClockInfo", CLOCK_SM),
        memory_mhz=nvml("memory_clock", "nvmlDeviceGetClockInfo", CLOCK_MEMORY),
        reasons=read("reasons", _reasons, handle),
        power_limited_s=limited_s("power_limited", POLICY_POWER),
        thermal_limited_s=limited_s("thermal_limited", POLICY_THERMAL),
        temperature_c=nvml("temperature", "nvmlDeviceGetTemperature", TEMPERATURE_GPU),
        power_w=None if power is None else power / 1e3,
    )


def _processes(handle: Any) -> frozenset[int]:
    computing = query("nvmlDeviceGetComputeRunningProcesses", handle)
    drawing = attempt(query, "nvmlDeviceGetGraphicsRunningProcesses", handle) or []
    return frozenset(process.pid for process in (*computing, *drawing))


def _reasons(handle: Any) -> int:
    reasons = attempt(query, "nvmlDeviceGetCurrentClocksEventReasons", handle)
    if reasons is None:  # a driver before 535, or an old `pynvml`, has the older name alone
        reasons = query("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
    return reasons


def read_host(read: Reader) -> HostReading:
    """Read the counters of the system, this process and this thread."""
    thread = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # a thread's: Linux alone
    return HostReading(
        core=read("core", lambda: psutil.Process().cpu_num()),
        busy_s=read("busy", _busy_s),
        steal_s=read("steal", _steal_s),
        preemptions=read("preemptions", lambda: resource.getrusage(thread).ru_nivcsw),
        at_s=time.perf_counter(),
        own_s=time.process_time(),
        thread_s=time.thread_time(),
    )


def _busy_s() -> float:
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))


def _steal_s() -> dict[int, float]:
    """Stolen seconds by the core's own number: a container may list fewer cores, or others."""
    lines = Path("/proc/stat").read_text(encoding="utf8")
    found = re.findall(r"^cpu(\d+)" + r" \d+" * 7 + r" (\d+)", lines, re.MULTILINE)
    stolen = {int(core): int(ticks) / os.sysconf("SC_CLK_TCK") for core, ticks in found}
    if not os.sched_getaffinity(0) <= stolen.keys():
        raise LookupError("/proc/stat does not list the cores that we may run on")
    return stolen
