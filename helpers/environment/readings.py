"""Who is on the GPU and the CPU: raw counters, where None is "not observable", never "clean"."""

import multiprocessing
import os
import re
import resource
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time, thread_time

import psutil
import torch

from helpers.environment import nvml
from helpers.environment.facts import Reader, attempt
from helpers.environment.nvml import query

HELD_BACK = "nvmlDeviceGetViolationStatus"
NVML = {  # of a GpuReading
    "sm_mhz": nvml.FACTS["sm_clock_mhz"],
    "memory_mhz": nvml.FACTS["memory_clock_mhz"],
    "reasons": lambda gpu: query("nvmlDeviceGetCurrentClocksEventReasons", gpu),  # driver >= 535
    "power_limited_s": lambda gpu: query(HELD_BACK, gpu, 0).violationTime / 1e9,
    "thermal_limited_s": lambda gpu: query(HELD_BACK, gpu, 1).violationTime / 1e9,
}
THREAD = getattr(resource, "RUSAGE_THREAD", None)  # Linux alone counts by thread
BUSY = ("user", "nice", "system", "irq", "softirq")


@dataclass(frozen=True)
class GpuReading:
    """What NVML says of a GPU; clocks in MHz."""

    processes: frozenset[int] | None  # pids with a context on this GPU, ours among them
    shares: tuple[tuple[int, int], ...] | None  # (pid, SM %) samples since the last look
    sm_mhz: int | None
    memory_mhz: int | None
    reasons: int | None  # bit mask of clock-event reasons
    power_limited_s: float | None  # counters: seconds held back by each policy
    thermal_limited_s: float | None


@dataclass(frozen=True)
class HostReading:
    """Counters of the system and this process; seconds of CPU time, summed over the CPUs."""

    at_s: float  # when these counters were read (perf_counter)
    own_s: float  # this process, all threads
    thread_s: float  # the measuring thread
    busy_s: float | None  # whole system, this process included, without idle, waiting and stolen
    core: int | None  # the one we are on
    steal_s: dict[int, float] | None  # by core: wanted by this virtual machine, given to another
    preemptions: int | None  # of the measuring thread: involuntary context switches


@dataclass(frozen=True)
class Look:
    """What was read at one moment, and why the rest was not."""

    gpu: GpuReading | None  # None: no GPU is watched, or NVML is not there
    host: HostReading
    failed: dict[str, str]


@dataclass(frozen=True)
class Process:
    """The process that measures."""

    pid: int
    own: frozenset[int]  # pids of it and its spawner
    spawned: bool  # by another process of ours, which may have a context on the GPU
    cpus: int  # of the system


def this_process() -> Process:
    """Say which process this is, where `own` covers every namespace: NVML may know the host's."""
    parent = multiprocessing.parent_process()
    own = {os.getpid()} | ({parent.pid} if parent else set())
    for pid in tuple(own):
        status = attempt(Path(f"/proc/{pid}/status").read_text) or ""
        own |= {int(seen) for line in re.findall("NSpid:(.*)", status) for seen in line.split()}
    return Process(os.getpid(), frozenset(own), parent is not None, attempt(psutil.cpu_count) or 1)


class Looker:
    """Takes looks at a device's GPU and at the host; one for each run, made before its first."""

    def __init__(self, device: torch.device | str):
        self._handle, self._last_seen = nvml.find_gpu(torch.device(device))[0], 0
        self()  # NVML hands out its whole buffer once: what happened before this run

    def __call__(self) -> Look:
        """Take one look; what cannot be read is None, and nothing is raised."""
        gpu, read = None, Reader()
        if self._handle is not None:
            processes, shares = read("processes", self._processes), read("shares", self._shares)
            seen = {key: read(key, get, self._handle) for key, get in NVML.items()}
            gpu = GpuReading(processes, shares, **seen)
        host = HostReading(
            core=read("core", lambda: psutil.Process().cpu_num()),
            busy_s=read("busy", _busy_s),
            steal_s=read("steal", _steal_s),
            preemptions=read("preemptions", lambda: resource.getrusage(THREAD).ru_nivcsw),
            at_s=perf_counter(),
            own_s=process_time(),
            thread_s=thread_time(),
        )
        return Look(gpu, host, read.failed)

    def _processes(self) -> frozenset[int]:
        computing = query("nvmlDeviceGetComputeRunningProcesses", self._handle)
        drawing = attempt(query, "nvmlDeviceGetGraphicsRunningProcesses", self._handle) or []
        return frozenset(process.pid for process in (*computing, *drawing))

    def _shares(self) -> tuple[tuple[int, int], ...]:
        try:
            samples = query("nvmlDeviceGetProcessUtilization", self._handle, self._last_seen)
        except Exception as error:
            if type(error).__name__ == "NVMLError_NotFound":  # no new sample is an answer
                return ()
            raise
        # Drivers sometimes return unused entries, with no time stamp or a share above 100 %.
        valid = [s for s in samples if s.timeStamp > self._last_seen and s.smUtil <= 100]
        self._last_seen = max((s.timeStamp for s in valid), default=self._last_seen)
        return tuple((s.pid, s.smUtil) for s in valid)


def _busy_s() -> float:
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in BUSY)


def _steal_s() -> dict[int, float]:
    """Stolen seconds by the core's own number: a container may list fewer cores, or others."""
    lines = Path("/proc/stat").read_text(encoding="utf8")
    found = re.findall(r"^cpu(\d+)" + r" \d+" * 7 + r" (\d+)", lines, re.MULTILINE)
    stolen = {int(core): int(ticks) / os.sysconf("SC_CLK_TCK") for core, ticks in found}
    if not os.sched_getaffinity(0) <= stolen.keys():
        raise LookupError("/proc/stat does not list the cores that we may run on")
    return stolen
