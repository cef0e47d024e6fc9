"""Calibration receipt: what each clock reads on work whose duration is known.

On a GPU the known work is a kernel that spins on the GPU's nanosecond timer and notes how long it
really spun; on a CPU, a busy-wait on the raw monotonic counter, which no time service slews.
measured = intercept + slope x true is fitted on some durations and judged on others. Nothing is
subtracted from the benchmark's samples: the receipt says how far a label can be trusted.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from helpers.clocks.kernels import compile_kernel
from helpers.clocks.timing import GpuClock, host_latencies, launches_block
from helpers.environment.facts import first_line

FIT_US = {10: 200, 100: 100, 1_000: 30, 10_000: 10}  # duration: how often it is read
HELD_OUT_US = {30: 200, 300: 100, 3_000: 20}
# Stated limits of the error left on held-out durations: absolute (ms), and relative, the larger.
# The host's clock also waits for the scheduler: below 0.1 ms it says nothing on a virtual machine.
LIMITS = {"gpu": (0.001, 0.001), "host": (0.100, 0.010)}
TIMER_SPINS_S = (0.3, 1.3)
TIMER_LIMIT = 5e-4  # GPU timer against host clock: half of the GPU clock's 0.1 %


@dataclass(frozen=True)
class Calibration:
    """How one clock reads known durations, in ms.

    `resolution_ms`: the smallest step between two readings, None where none was seen. `points`:
    (true, measured, used for the fit) medians. `held_out_error_ms`: the largest error of
    (measured - intercept) / slope on the others, `limit_ratio` the largest error over its limit.
    """

    clock: str
    resolution_ms: float | None
    empty_ms: float
    points: tuple[tuple[float, float, bool], ...]
    intercept_ms: float
    slope: float
    held_out_error_ms: float
    limit_ratio: float

    @property
    def within_limits(self) -> bool:
        """Does the clock keep its own stated limits?"""
        return self.limit_ratio <= 1


@dataclass(frozen=True)
class CalibrationReceipt:
    """The calibrations, GPU timer / host clock (None on a CPU), and why there are none, or some."""

    clocks: tuple[Calibration, ...]
    gpu_timer_ratio: float | None
    reason: str

    @property
    def status(self) -> str:
        """'calibrated', 'uncalibrated' (off its own limits) or 'not calibrated' (impossible)."""
        if self.reason:
            return "not calibrated"
        timer_ok = self.gpu_timer_ratio is None or abs(self.gpu_timer_ratio - 1) <= TIMER_LIMIT
        good = timer_ok and all(c.within_limits for c in self.clocks)
        return "calibrated" if good else "uncalibrated"

    @property
    def flags(self) -> tuple[str, ...]:
        """For the column `flags`: empty when calibrated."""
        return () if self.status == "calibrated" else (self.status.replace(" ", "_"),)


def limit_ms(true_ms, clock: str, resolution_ms: float | None = None):
    """Stated limit of the error at `true_ms`: absolute or relative, the larger, at least a tick."""
    absolute, relative = LIMITS[clock]
    return np.maximum(max(absolute, resolution_ms or 0.0), relative * np.asarray(true_ms))


def judge(clock: str, resolution_ms: float | None, empty_ms: float, points) -> Calibration:
    """Fit the (true_ms, measured_ms, used for the fit) points marked for it, judge the others."""
    true, measured, fitted = (np.array(column) for column in zip(*points, strict=True))
    limits = limit_ms(true, clock, resolution_ms)
    slope, intercept = np.polyfit(true[fitted], measured[fitted], 1, w=1 / limits[fitted]).tolist()
    error = np.abs((measured - intercept) / slope - true)[~fitted]
    ratio, largest = float(np.max(error / limits[~fitted])), float(error.max())
    points = tuple(points)
    return Calibration(clock, resolution_ms, empty_ms, points, intercept, slope, largest, ratio)


def calibrate(device: torch.device) -> CalibrationReceipt:
    """Calibrate every clock that exists on `device`; takes about 3 s on a GPU, 1 s on a CPU.

    It stands beside the measurement: what cannot be calibrated, for whatever reason, is said.
    """
    clocks, ratio, reason = [], None, ""
    try:
        work = Spin(device) if device.type == "cuda" else BusyWait()
        clocks.append(calibrate_host(work, device))
        if device.type == "cuda":
            clocks.append(calibrate_gpu(work))
            ratio = gpu_timer_ratio(work)
    except Exception as error:  # no compiler, launches that wait, a GPU that is lost …
        blocking = "CUDA_LAUNCH_BLOCKING is set; " if launches_block() else ""
        reason = blocking + first_line(error)
    return CalibrationReceipt(tuple(clocks), ratio, reason)


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
        """Median of the durations that were noted since the last call.

        The samples' own spins: with one spin's duration alone, whatever delayed it, such as a
        display's refresh, would stand for all.
        """
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
        points.append((work.take_ms(), measured, duration in FIT_US))
    return points


def gpu_timer_ratio(spin: Spin) -> float:
    """GPU timer over host clock: events and the GPU's timer may share a time base, the host's not.

    The host may wake up a millisecond late: what looks off the limit is measured twice more, and
    the median of the three counts.
    """
    ratios = [_timer_ratio_once(spin)]
    if abs(ratios[0] - 1) > TIMER_LIMIT:
        ratios += [_timer_ratio_once(spin) for _ in range(2)]
    return float(np.median(ratios))


def _timer_ratio_once(spin: Spin) -> float:
    """One short spin and one long: their difference cancels the launch overhead."""
    host, gpu = [], []
    for seconds in TIMER_SPINS_S:
        host.append(host_latencies(spin, [int(seconds * 1e6)], 1, spin.device)[0])
        gpu.append(spin.take_ms())
    return (gpu[1] - gpu[0]) / (host[1] - host[0])
