import numpy as np
import pytest
import torch

from helpers.clocks import calibration
from helpers.clocks.calibration import CalibrationReceipt, calibrate, judge

STEPS = ("Spin", "calibrate_host", "calibrate_gpu", "gpu_timer_ratio")


def points(read):
    true = np.array(sorted(calibration.FIT_US + calibration.HELD_OUT_US)) / 1e3
    return [(t, read(t), round(t * 1e3) in calibration.FIT_US) for t in true]


def test_overhead_and_bias_are_found_and_nothing_is_subtracted():
    found = judge("gpu", 3e-5, 1e-3, points(lambda t: 0.004 + 1.0005 * t))
    assert found.intercept_ms == pytest.approx(0.004, abs=1e-9)
    assert found.slope == pytest.approx(1.0005, abs=1e-9)
    assert found.held_out_error_ms == pytest.approx(0, abs=1e-9)
    assert found.points[0][1] == pytest.approx(0.004 + 1.0005 * 0.010)


GOOD = judge("gpu", 3e-5, 1e-3, points(lambda t: t + 0.004))
BENT = judge("gpu", 3e-5, 1e-3, points(lambda t: t + 0.02 * np.sqrt(t)))


@pytest.mark.parametrize(
    ("clock", "ratio", "status", "flags"),
    [
        (GOOD, 1.00001, "calibrated", ()),
        (GOOD, None, "calibrated", ()),
        (GOOD, 1.001, "uncalibrated", ("uncalibrated",)),
        (BENT, 1.0, "uncalibrated", ("uncalibrated",)),
    ],
    ids=["good", "no GPU", "the timer disagrees with the host", "off its limits"],
)
def test_a_clock_off_its_limits_marks_the_session(clock, ratio, status, flags):
    receipt = CalibrationReceipt((clock,), ratio, "")
    assert (receipt.status, receipt.flags) == (status, flags)


@pytest.mark.parametrize(
    ("readings", "ratio"),
    [([1.00001], 1.00001), ([0.999, 1.0, 1.00001], 1.0), ([0.999, 0.9991, 1.0], 0.9991)],
    ids=["agrees", "a late host", "disagrees"],
)
def test_a_late_host_is_no_wrong_timer(monkeypatch, readings, ratio):
    series = iter(readings)
    monkeypatch.setattr(calibration, "_timer_ratio_once", lambda spin: next(series))
    assert calibration.gpu_timer_ratio(None) == ratio
    assert next(series, None) is None  # no more spins than needed


def test_held_out_durations_do_not_take_part_in_the_fit():
    bad_held_out = [(t, m if fit else m + 5, fit) for t, m, fit in points(lambda t: t)]
    found = judge("host", 1e-6, 1e-4, bad_held_out)
    assert found.intercept_ms == pytest.approx(0, abs=1e-9)
    assert found.held_out_error_ms == pytest.approx(5)
    assert not found.within_limits


def test_a_cpu_gets_a_receipt_for_its_host_clock():
    receipt = calibrate(torch.device("cpu"))
    (host,) = receipt.clocks
    assert host.clock == "host"
    assert receipt.gpu_timer_ratio is None
    assert 0.9 < host.slope < 1.5
    assert receipt.status in ("calibrated", "uncalibrated")


@pytest.mark.parametrize(
    "error", [RuntimeError("no compiler"), OSError("CUDA_HOME"), AttributeError(), ImportError()]
)
@pytest.mark.parametrize("step", STEPS)
def test_whatever_fails_the_session_goes_on_uncalibrated(monkeypatch, error, step):
    for name in STEPS:
        monkeypatch.setattr(calibration, name, lambda *_: None)

    def fails(*_):
        raise error

    monkeypatch.setattr(calibration, step, fails)
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    receipt = calibrate(torch.device("cuda"))
    assert receipt.status == "not calibrated"
    assert receipt.flags == ("not_calibrated",)
    assert type(error).__name__ in receipt.reason
    assert "CUDA_LAUNCH_BLOCKING" in receipt.reason


def test_the_limit_is_never_below_the_tick():
    """A desktop GPU's events tick at 1.024 µs, more than the limit of 1 µs."""
    tick = 1.024e-3
    coarse = judge("gpu", tick, tick, points(lambda t: tick * round(t / tick)))
    assert coarse.held_out_error_ms > 0
    assert coarse.within_limits
    assert calibration.smallest_step(np.array([0.004, 0.005, 0.007])) == pytest.approx(0.001)
    assert calibration.smallest_step(np.full(100, 0.004)) is None


class DelayedSpins:
    """Spins on a GPU whose display refreshes: one in `every` lasts 2 ms longer, and notes it."""

    def __init__(self, every):
        self.every, self.launched, self.noted = every, 0, []

    def forget(self):
        self.noted = []

    def __call__(self, duration_us):
        self.launched += 1
        late = 2.0 if self.launched % self.every == 0 else 0.0
        self.noted.append(duration_us / 1e3 + late)
        return self.noted[-1]

    def median_ms(self):
        return float(np.median(self.noted))


@pytest.mark.parametrize("every", [3, 7, 10, 60])
def test_a_display_refresh_spoils_no_calibration(monkeypatch, every):
    spins = DelayedSpins(every)

    def latencies(call, inputs, iterations, device):
        if inputs == [None]:
            return np.full(iterations, 0.008)
        return np.array([0.009 + spins(inputs[0]) for _ in range(iterations)])

    monkeypatch.setattr(calibration, "host_latencies", latencies)
    found = calibration.calibrate_host(spins, torch.device("cpu"))
    assert found.within_limits
    assert found.intercept_ms == pytest.approx(0.009, abs=1e-4)


@pytest.mark.gpu
def test_the_gpu_clock_keeps_its_limits():
    receipt = calibrate(torch.device("cuda"))
    gpu = next(c for c in receipt.clocks if c.clock == "gpu")
    assert gpu.within_limits
    assert receipt.gpu_timer_ratio == pytest.approx(1, abs=calibration.TIMER_LIMIT)
