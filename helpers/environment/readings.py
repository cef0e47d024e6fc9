"""One look at who is on the GPU and the CPU: raw counters of NVML, the system and this process.

A value of None, or an empty answer while we compute, means "not observable here", never "clean".
"""

import multiprocessing
import os
import re
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time, thread_time
from typing import Any

import psutil
import torch

from helpers.environment import nvml
from helpers.environment.facts import Reader, attempt
from helpers.environment.nvml import query


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
    """The process that measures, and how many CPUs the system counts.

    `own`: its pid and its spawner's, in every namespace that /proc shows: NVML may know us by the
    host's pid. `spawned`: another process of ours started it, and may have a context on the GPU.
    """

    pid: int
    own: frozenset[int]
    spawned: bool
    cpus: int


def this_process() -> Process:
    """Say which process this is."""
    parent = multiprocessing.parent_process()
    ours = {os.getpid()} | ({parent.pid} if parent else set())
    status = [attempt(Path(f"/proc/{pid}/status").read_text) or "" for pid in ours]
    found = re.findall(r"^NSpid:(.*)$", "\n".join(status), re.MULTILINE)
    own = frozenset(ours | {int(pid) for line in found for pid in line.split()})
    return Process(os.getpid(), own, parent is not None, attempt(psutil.cpu_count) or 1)


class Looker:
    """Takes looks at a device's GPU and at the host: one for each run, made before its first."""

    def __init__(self, device: torch.device | str):
        self._handle, self._last_seen = nvml.nvml_handle(torch.device(device)), 0
        self()  # NVML hands out its whole buffer once: what happened before this run

    def __call__(self) -> Look:
        """Take one look; what cannot be read is None, and nothing is raised."""
        start, read = perf_counter(), Reader()
        gpu = None if self._handle is None else self._read_gpu(read)
        return Look(start, gpu=gpu, host=_read_host(read), end_s=perf_counter(), failed=read.failed)

    def _read_gpu(self, read: Reader) -> GpuReading:
        def told(key: str, name: str, *args: int, of: Callable = lambda value: value) -> Any:
            return read(key, lambda: of(query(name, self._handle, *args)))

        def limited_s(key: str, policy: int) -> float | None:
            name, of = "nvmlDeviceGetViolationStatus", lambda status: status.violationTime / 1e9
            return told(key, name, policy, of=of)

        return GpuReading(
            processes=read("processes", self._processes),
            shares=read("shares", self._shares),
            sm_mhz=told("sm_mhz", "nvmlDeviceGetClockInfo", nvml.CLOCK_SM),
            memory_mhz=told("memory_mhz", "nvmlDeviceGetClockInfo", nvml.CLOCK_MEMORY),
            reasons=read("reasons", self._reasons),
            power_limited_s=limited_s("power_limited_s", nvml.POLICY_POWER),
            thermal_limited_s=limited_s("thermal_limited_s", nvml.POLICY_THERMAL),
            temperature_c=told("temperature_c", "nvmlDeviceGetTemperature", nvml.TEMPERATURE_GPU),
            power_w=told("power_w", "nvmlDeviceGetPowerUsage", of=lambda power: power / 1e3),
        )

    def _processes(self) -> frozenset[int]:
        computing = query("nvmlDeviceGetComputeRunningProcesses", self._handle)
        drawing = attempt(query, "nvmlDeviceGetGraphicsRunningProcesses", self._handle) or []
        return frozenset(process.pid for process in (*computing, *drawing))

    def _shares(self) -> tuple[tuple[int, int], ...]:
        """The samples since the last look; not supported or not permitted raises, none does not."""
        try:
            samples = query("nvmlDeviceGetProcessUtilization", self._handle, self._last_seen)
        except Exception as error:
            if type(error).__name__ == "NVMLError_NotFound":
                return ()
            raise
        # Drivers sometimes return unused entries, with no time stamp or a share above 100 %.
        valid = [s for s in samples if s.timeStamp > self._last_seen and s.smUtil <= 100]
        self._last_seen = max((s.timeStamp for s in valid), default=self._last_seen)
        return tuple((s.pid, s.smUtil) for s in valid)

    def _reasons(self) -> int:
        # A driver before 535, or an old `pynvml`, has the older name alone.
        now = attempt(query, "nvmlDeviceGetCurrentClocksEventReasons", self._handle)
        old = "nvmlDeviceGetCurrentClocksThrottleReasons"
        return query(old, self._handle) if now is None else now


def _read_host(read: Reader) -> HostReading:
    thread = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # a thread's: Linux alone
    return HostReading(
        core=read("core", lambda: psutil.Process().cpu_num()),
        busy_s=read("busy", _busy_s),
        steal_s=read("steal", _steal_s),
        preemptions=read("preemptions", lambda: resource.getrusage(thread).ru_nivcsw),
        at_s=perf_counter(),
        own_s=process_time(),
        thread_s=thread_time(),
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
