from itertools import count

import numpy as np
import pytest
import torch

from helpers.clocks import calibration
from helpers.clocks.calibration import FIT_US, HELD_OUT_US, CalibrationReceipt, calibrate, judge

STEPS = ("Spin", "calibrate_host", "calibrate_gpu")
TICK = 1.024e-3  # of a desktop GPU's events: more than the limit of 0.001 ms


def judged(read, clock="gpu", tick=3e-5, held_out_off=0.0):
    """A clock that reads `read(true_ms)`."""
    true = {us: us / 1e3 for us in sorted(FIT_US | HELD_OUT_US)}
    off = {us: 0.0 if us in FIT_US else held_out_off for us in true}
    points = [(t, read(t) + off[us], us in FIT_US) for us, t in true.items()]
    return judge(clock, tick, 1e-3, points)


GOOD, BENT = judged(lambda t: t + 0.004), judged(lambda t: t + 0.02 * np.sqrt(t))


@pytest.mark.parametrize("off", [0.0, 5.0])
def test_overhead_and_bias_are_found_without_the_held_out_durations(off):
    found = judged(lambda t: 0.004 + 1.0005 * t, "host", held_out_off=off)
    assert (found.intercept_ms, found.slope) == pytest.approx((0.004, 1.0005), abs=1e-9)
    assert found.held_out_error_ms == pytest.approx(off / 1.0005, abs=1e-9)
    assert found.within_limits == (off == 0)
    assert found.points[0][1] == pytest.approx(0.004 + 1.0005 * 0.010)  # nothing is subtracted
    coarse = judged(lambda t: TICK * round(t / TICK), tick=TICK)
    assert (coarse.held_out_error_ms > 0, coarse.within_limits) == (True, True)


def test_a_clock_off_its_limits_marks_the_session():
    assert CalibrationReceipt((GOOD, GOOD), "").flags == ()
    assert CalibrationReceipt((GOOD, BENT), "").flags == ("uncalibrated",)


def test_a_cpu_gets_a_receipt_for_its_host_clock():
    receipt = calibrate(torch.device("cpu"))
    (host,) = receipt.clocks
    assert host.clock == "host"
    assert 0.9 < host.slope < 1.5
    assert receipt.status in ("calibrated", "uncalibrated")


@pytest.mark.parametrize("step", STEPS)
def test_whatever_fails_the_session_goes_on_uncalibrated(monkeypatch, step):
    def fails(*_):
        raise OSError("no compiler")

    for name in STEPS:
        monkeypatch.setattr(calibration, name, fails if name == step else lambda *_: None)
    receipt = calibrate(torch.device("cuda"))
    assert (receipt.status, receipt.flags) == ("not calibrated", ("not_calibrated",))
    assert "no compiler" in receipt.reason


def test_a_display_refresh_spoils_no_calibration(monkeypatch):
    """One spin in three lasts 2 ms longer, and notes it."""
    spins, launched = calibration.BusyWait(), count(1)

    def latencies(call, inputs, iterations, device):
        if inputs == [None]:
            return np.full(iterations, 0.008)
        late = [2e6 * (next(launched) % 3 == 0) for _ in range(iterations)]
        lasted_ns = [inputs[0] * 1e3 + own for own in late]
        spins._noted_ns += lasted_ns
        return 0.009 + np.array(lasted_ns) / 1e6

    monkeypatch.setattr(calibration, "host_latencies", latencies)
    found = calibration.calibrate_host(spins, torch.device("cpu"))
    assert found.within_limits
    assert found.intercept_ms == pytest.approx(0.009, abs=1e-4)


@pytest.mark.gpu
def test_the_gpu_clock_keeps_its_limits_and_its_timer_agrees_with_the_hosts():
    gpu = calibrate(device := torch.device("cuda")).clocks[1]
    assert (gpu.clock, gpu.within_limits) == ("gpu", True)
    spin = calibration.Spin(device)  # so long that what the host takes to wake up hardly counts
    read = calibration.host_latencies(spin, [300_000], 3, device).min()
    assert read == pytest.approx(spin.take_ms(), rel=0.005)
