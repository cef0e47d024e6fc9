"""Calibration receipt: what each clock reads on work whose duration is known.

On a GPU the known work is a kernel that spins on the GPU's nanosecond timer and notes how long it
really spun; on a CPU, a busy-wait on the raw monotonic counter, which no time service slews.
measured = intercept + slope x true is fitted on some durations and judged on others. Nothing is
subtracted from the benchmark's samples: the receipt says how far a label can be trusted. The GPU's
events and timer may share a time base: it is the host clock's slope that compares it with another.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from helpers.clocks.kernels import compile_kernel
from helpers.clocks.timing import GpuClock, host_latencies
from helpers.environment.facts import first_line

FIT_US = {10: 200, 100: 100, 1_000: 30, 10_000: 10}  # duration: how often it is read
HELD_OUT_US = {30: 200, 300: 100, 3_000: 20}
# Stated limits of the error left on held-out durations: absolute (ms), and relative, the larger.
# The host's clock also waits for the scheduler: below 0.1 ms it says nothing on a virtual machine.
LIMITS = {"gpu": (0.001, 0.001), "host": (0.100, 0.010)}


@dataclass(frozen=True)
class Calibration:
    """How one clock reads known durations, in ms."""

    clock: str
    resolution_ms: float | None  # the smallest step between two readings; None: none was seen
    empty_ms: float  # what it reads around nothing
    points: tuple[tuple[float, float, bool], ...]  # medians: true, measured, used for the fit?
    intercept_ms: float
    slope: float
    held_out_error_ms: float  # the largest of (measured - intercept) / slope on the others
    within_limits: bool


@dataclass(frozen=True)
class CalibrationReceipt:
    """The calibrations, and why there are none, or only some."""

    clocks: tuple[Calibration, ...]
    reason: str

    @property
    def status(self) -> str:
        """'calibrated', 'uncalibrated' (off its own limits) or 'not calibrated' (impossible)."""
        if self.reason:
            return "not calibrated"
        return "calibrated" if all(c.within_limits for c in self.clocks) else "uncalibrated"

    @property
    def flags(self) -> tuple[str, ...]:
        """For the column `flags`: empty when calibrated."""
        return () if self.status == "calibrated" else (self.status.replace(" ", "_"),)


def calibrate(device: torch.device) -> CalibrationReceipt:
    """Calibrate every clock that exists on `device`; what cannot be done is said, not raised."""
    clocks, reason = [], ""
    try:
        work = Spin(device) if device.type == "cuda" else BusyWait()
        clocks.append(calibrate_host(work, device))
        if device.type == "cuda":
            clocks.append(calibrate_gpu(work))
    except Exception as error:  # no compiler, launches that wait, a GPU that is lost …
        reason = first_line(error)
    return CalibrationReceipt(tuple(clocks), reason)


def judge(clock: str, resolution_ms: float | None, empty_ms: float, points) -> Calibration:
    """Fit the (true_ms, measured_ms, used for the fit) points marked for it, judge the others."""
    true, measured, fitted = (np.array(column) for column in zip(*points, strict=True))
    absolute, relative = LIMITS[clock]
    limits = np.maximum(max(absolute, resolution_ms or 0.0), relative * true)
    slope, intercept = np.polyfit(true[fitted], measured[fitted], 1, w=1 / limits[fitted]).tolist()
    error = np.abs((measured - intercept) / slope - true)[~fitted]
    judged = float(error.max()), bool((error <= limits[~fitted]).all())
    return Calibration(clock, resolution_ms, empty_ms, tuple(points), intercept, slope, *judged)


class Spin:
    """GPU kernels of known duration, each of which notes how long it really was."""

    ROOM = 1024  # durations kept; older ones are overwritten

    def __init__(self, device: torch.device):
        self.device, self._launched = device, 0
        self._kernel = compile_kernel("spin", device)
        self._elapsed_ns = torch.zeros(self.ROOM, dtype=torch.int64, device=device)

    def __call__(self, duration_us: int) -> None:
        place = self._elapsed_ns.data_ptr() + 8 * (self._launched % self.ROOM)
        self._kernel(place, np.int32(duration_us * 1000))
        self._launched += 1

    def take_ms(self) -> float:
        """Median of the durations that were noted since the last call."""
        noted, self._launched = min(self._launched, self.ROOM), 0
        return float(self._elapsed_ns[:noted].median()) / 1e6


class BusyWait:
    """The same on a CPU: waits of known duration on the raw monotonic counter."""

    CLOCK = getattr(time, "CLOCK_MONOTONIC_RAW", time.CLOCK_MONOTONIC)

    def __init__(self):
        self._noted_ns: list[int] = []

    def __call__(self, duration_us: int) -> None:
        start = now = time.clock_gettime_ns(self.CLOCK)
        while now - start < duration_us * 1000:
            now = time.clock_gettime_ns(self.CLOCK)
        self._noted_ns.append(now - start)

    def take_ms(self) -> float:
        noted, self._noted_ns = self._noted_ns, []
        return float(np.median(noted)) / 1e6


def calibrate_gpu(spin: Spin) -> Calibration:
    """Calibrate the GPU's clock."""
    clock = GpuClock(spin.device)
    empty = clock.measure(lambda _: None, [None], 100).samples_ms
    clock.adapt(spin, [min(FIT_US)])  # a long spin fills the queue no sooner than a short one
    spin.take_ms()  # those are no samples
    points = _points(spin, lambda *series: clock.measure(spin, *series).samples_ms)
    tick = min(np.diff(np.unique(empty)).tolist(), default=None)  # as far as these show it
    return judge("gpu", tick, float(np.median(empty)), points)


def calibrate_host(work: Spin | BusyWait, device: torch.device) -> Calibration:
    """Calibrate the host's clock, around work on `device`."""
    empty = float(np.median(host_latencies(lambda _: None, [None], 200, device)))
    points = _points(work, lambda *series: host_latencies(work, *series, device))
    return judge("host", time.get_clock_info("perf_counter").resolution * 1e3, empty, points)


def _points(work: Spin | BusyWait, read: Callable) -> list[tuple[float, float, bool]]:
    points = []
    for duration, repeats in sorted((FIT_US | HELD_OUT_US).items()):
        measured = float(np.median(read([duration], repeats)))
        points.append((work.take_ms(), measured, duration in FIT_US))  # of the same waits
    return points
