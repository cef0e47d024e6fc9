"""One look at who is on the GPU and the CPU: raw counters of NVML, the system and this process.

A value of None, or an empty answer while we compute, means "not observable here", never "clean".
"""

import gc
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pynvml
import torch

from helpers.environment.facts import attempt

# Clock-event reasons that slow work down. Left out: an idle GPU, clocks set by the user or by an
# application, sync boost and the display's clock are states, not disturbances.
HARMFUL_REASONS = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "limite de puissance",
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "ralentissement matériel",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "ralentissement thermique logiciel",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "ralentissement thermique matériel",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "freinage par l'alimentation",
}
_POLICIES = (pynvml.NVML_PERF_POLICY_POWER, pynvml.NVML_PERF_POLICY_THERMAL)


@dataclass(frozen=True)
class GpuReading:
    """What NVML says; clocks in MHz, temperatures in °C, power in W; None: not observable."""

    processes: frozenset[int] | None  # pids with a context on this GPU, ours among them
    shares: tuple[tuple[int, int], ...] | None  # (pid, SM %) samples since the last look
    utilisation: int | None  # % of the last 1/6 to 1 s in which some kernel ran, ours included
    sm_mhz: int | None
    memory_mhz: int | None
    reasons: int | None  # bit mask of clock-event reasons
    limited_s: float | None  # counter: seconds held back by the power or the thermal policy
    temperature_c: int | None
    slowdown_c: int | None  # where the hardware slows itself down
    power_w: float | None
    energy_j: float | None  # counter
    ecc_errors: int | None  # counter: corrected and uncorrected


@dataclass(frozen=True)
class HostReading:
    """Counters of the system and of this process; seconds of CPU time, summed over the CPUs."""

    at_s: float  # when these counters were read (perf_counter)
    busy_s: float  # whole system, this process included, without idle, waiting and stolen time
    core: int | None  # the one we are on
    steal_s: tuple[float, ...] | None  # by core: wanted by this virtual machine, given to another
    own_s: float  # this process, all threads
    thread_s: float  # the measuring thread
    preemptions: int  # of the measuring thread: involuntary context switches
    major_faults: int  # of this process: pages read from a disk
    minor_faults: int
    gc_runs: int
    allocator_retries: int
    cpu_mhz: float | None  # the core we are on; None where the hypervisor hides it


@dataclass(frozen=True)
class Snapshot:
    """One look: when it began and ended (s, perf_counter) and what was read."""

    start_s: float
    end_s: float
    gpu: GpuReading | None  # None: no GPU is watched, or NVML is not there
    host: HostReading


def nvml_handle(device: torch.device) -> Any:
    """NVML's handle of torch's GPU, found by UUID (indices differ); None on a CPU, without NVML.

    NVML is opened here and stays open until the process ends: opening it takes longer than a look.
    """
    if device.type != "cuda":
        return None

    def find() -> Any:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")

    return attempt(find)


def sm_clock_mhz(handle: Any) -> int | None:
    """The SM clock now, in MHz; None where it cannot be seen."""
    return attempt(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM)


def own_pids() -> frozenset[int]:
    """Our pid in every PID namespace that /proc shows: NVML may know us by the host's."""
    status = attempt(Path("/proc/self/status").read_text) or ""
    lines = [line for line in status.splitlines() if line.startswith("NSpid:")]
    return frozenset({os.getpid(), *(int(pid) for line in lines for pid in line.split()[1:])})


def utilisation_samples(handle: Any, since: int) -> tuple[tuple, int]:
    """Per-process SM samples newer than the timestamp `since`: ((pid, SM %), ...), newest stamp.

    Raises
    ------
    pynvml.NVMLError
        Not supported or not permitted here. No sample at all is no error.
    """
    try:
        samples = pynvml.nvmlDeviceGetProcessUtilization(handle, since)
    except pynvml.NVMLError_NotFound:
        return (), since
    # Drivers sometimes return unused entries, with no time stamp or a share above 100 %.
    valid = [s for s in samples if s.timeStamp > since and s.smUtil <= 100]
    newest = max((s.timeStamp for s in valid), default=since)
    return tuple((s.pid, s.smUtil) for s in valid), newest


def read_gpu(handle: Any, shares: tuple | None) -> GpuReading:
    """Read what NVML says now; `shares` are the samples that the caller has already fetched."""

    def read(name: str, *args: Any) -> Any:
        return attempt(lambda: getattr(pynvml, name)(handle, *args))

    power = read("nvmlDeviceGetPowerUsage")
    energy = read("nvmlDeviceGetTotalEnergyConsumption")
    rates = read("nvmlDeviceGetUtilizationRates")
    return GpuReading(
        processes=attempt(_processes, handle),
        shares=shares,
        utilisation=None if rates is None else rates.gpu,
        sm_mhz=read("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),
        memory_mhz=read("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_MEM),
        reasons=_reasons(handle),
        limited_s=attempt(_limited_s, handle),
        temperature_c=read("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
        slowdown_c=read(
            "nvmlDeviceGetTemperatureThreshold", pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
        ),
        power_w=None if power is None else power / 1e3,
        energy_j=None if energy is None else energy / 1e3,
        ecc_errors=attempt(_ecc_errors, handle),
    )


def read_host(cuda: bool) -> HostReading:
    """Read the counters of the system, this process and this thread."""
    core = attempt(psutil.Process().cpu_num)
    times, usage = psutil.cpu_times(), resource.getrusage(resource.RUSAGE_SELF)
    busy = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    return HostReading(
        at_s=time.perf_counter(),
        busy_s=busy,
        core=core,
        steal_s=attempt(_steal_s),
        own_s=time.process_time(),
        thread_s=time.thread_time(),
        preemptions=_preemptions(),
        major_faults=usage.ru_majflt,
        minor_faults=usage.ru_minflt,
        gc_runs=sum(generation["collections"] for generation in gc.get_stats()),
        allocator_retries=torch.cuda.memory_stats().get("num_alloc_retries", 0) if cuda else 0,
        cpu_mhz=attempt(_cpu_mhz, core),
    )


def _preemptions() -> int:
    whose = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # a thread's: Linux alone
    return resource.getrusage(whose).ru_nivcsw


def _steal_s() -> tuple[float, ...]:
    return tuple(times.steal for times in psutil.cpu_times(percpu=True))


def _cpu_mhz(core: int) -> float:
    """Clock of a core, from the cpufreq driver, which is a physical machine's.

    psutil.cpu_freq() averages over all cores, idle ones too, and in a virtual machine it returns
    the constant of /proc/cpuinfo, which says nothing.
    """
    path = Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq")
    return int(path.read_text(encoding="utf-8")) / 1e3


def _processes(handle: Any) -> frozenset[int]:
    computing = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    drawing = attempt(pynvml.nvmlDeviceGetGraphicsRunningProcesses, handle) or []
    return frozenset(process.pid for process in (*computing, *drawing))


def _reasons(handle: Any) -> int | None:
    newer = getattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    reasons = attempt(newer, handle)
    if reasons is None:  # a driver before 535 has the older name alone
        reasons = attempt(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return reasons


def _limited_s(handle: Any) -> float:
    statuses = [pynvml.nvmlDeviceGetViolationStatus(handle, policy) for policy in _POLICIES]
    return sum(status.violationTime for status in statuses) / 1e9


def _ecc_errors(handle: Any) -> int:
    kinds = (pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED)
    return sum(
        pynvml.nvmlDeviceGetTotalEccErrors(handle, kind, pynvml.NVML_VOLATILE_ECC) for kind in kinds
    )
