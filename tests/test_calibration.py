import numpy as np
import pytest
import torch

from helpers.clocks import calibration
from helpers.clocks.calibration import CalibrationReceipt, calibrate, judge


def points(read):
    true = np.array(sorted(calibration.FIT_US + calibration.HELD_OUT_US)) / 1e3
    return [(t, read(t), round(t * 1e3) in calibration.FIT_US) for t in true]


def test_overhead_and_bias_are_found_and_nothing_is_subtracted():
    found = judge("gpu", 3e-5, 1e-3, points(lambda t: 0.004 + 1.0005 * t))
    assert found.intercept_ms == pytest.approx(0.004, abs=1e-9)
    assert found.slope == pytest.approx(1.0005, abs=1e-9)
    assert found.held_out_error_ms == pytest.approx(0, abs=1e-9)
    assert found.within_limits
    assert found.points[0][1] == pytest.approx(0.004 + 1.0005 * 0.010)


def test_a_clock_off_its_limits_marks_the_session_uncalibrated():
    bent = judge("gpu", 3e-5, 1e-3, points(lambda t: t + 0.02 * np.sqrt(t)))
    assert not bent.within_limits
    assert CalibrationReceipt((bent,), 1.0, "").status == "uncalibrated"
    assert CalibrationReceipt((bent,), 1.0, "").flags == ("uncalibrated",)


def test_a_gpu_timer_that_disagrees_with_the_host_is_not_trusted():
    good = judge("gpu", 3e-5, 1e-3, points(lambda t: t + 0.004))
    assert CalibrationReceipt((good,), 1.00001, "").status == "calibrated"
    assert CalibrationReceipt((good,), 1.00001, "").flags == ()
    assert CalibrationReceipt((good,), 1.001, "").status == "uncalibrated"


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


def test_a_platform_without_kernels_says_not_calibrated(monkeypatch):
    def no_compiler(_):
        raise RuntimeError("no run-time compiler here")

    monkeypatch.setattr(calibration, "compile_kernel", no_compiler)
    receipt = calibrate(torch.device("cuda"))
    assert receipt.status == "not calibrated"
    assert receipt.flags == ("not_calibrated",)
    assert "no run-time compiler" in receipt.reason


@pytest.mark.gpu
def test_the_gpu_clock_keeps_its_limits():
    receipt = calibrate(torch.device("cuda"))
    gpu = next(c for c in receipt.clocks if c.clock == "gpu")
    assert gpu.within_limits
    assert receipt.gpu_timer_ratio == pytest.approx(1, abs=calibration.TIMER_LIMIT)
