"""Looks, from an NVML that is a stand-in to the observations of a run."""

import os
from dataclasses import replace
from types import SimpleNamespace

import nvml_fake
import pynvml
import pytest
import torch
from looks_fake import CLEAN_GPU, clean_samples, snapshot
from nvml_fake import ME, OTHER, sample

from helpers.bench_latency import benchmark_latency
from helpers.display.verdict import disturbances
from helpers.environment.facts import Reader
from helpers.environment.readings import (
    read_gpu,
    read_host,
    utilisation_samples,
)
from helpers.validation import interference
from helpers.validation.interference import Watch, describe, flags, not_observable, untagged
from helpers.validation.interference.rules import GPU_RULES


@pytest.fixture
def nvml(monkeypatch):
    return nvml_fake.install(monkeypatch)


def test_gpu_reading_in_its_units(nvml):
    reading = read_gpu("handle", (), Reader())
    assert reading.power_w == 180.0
    assert reading.power_limited_s == reading.thermal_limited_s == 0.5
    assert reading.processes == {ME}


def test_an_old_driver_tells_the_reasons_under_the_old_name(nvml):
    nvml["nvmlDeviceGetCurrentClocksEventReasons"] = pynvml.NVMLError_FunctionNotFound
    assert read_gpu("handle", (), Reader()).reasons == 4


def test_new_valid_utilisation_samples_only(nvml):
    nvml["nvmlDeviceGetProcessUtilization"] = [
        sample(ME, 60, 2000),
        sample(OTHER, 20, 1500),
        sample(OTHER, 30, 900),  # already seen
        sample(0, 4_000_000, 2100),  # an unused entry
    ]
    assert utilisation_samples("handle", 1000) == (((ME, 60), (OTHER, 20)), 2000)


def test_no_utilisation_sample_is_an_answer_and_no_support_is_an_error(nvml):
    nvml["nvmlDeviceGetProcessUtilization"] = pynvml.NVMLError_NotFound
    assert utilisation_samples("handle", 7) == ((), 7)
    nvml["nvmlDeviceGetProcessUtilization"] = pynvml.NVMLError_NotSupported
    with pytest.raises(pynvml.NVMLError):
        utilisation_samples("handle", 7)


def test_host_counters_never_fall():
    before, after = read_host(Reader()), read_host(Reader())
    counters = ("at_s", "busy_s", "own_s", "thread_s", "preemptions")
    assert all(getattr(after, name) >= getattr(before, name) for name in counters)


# --- watch


@pytest.fixture
def staged(monkeypatch):
    """A watch of a GPU whose looks are played from a list."""

    def make(looks):
        watch = Watch("cpu")
        watch.device, watch._own, watch._cpus = torch.device("cuda"), frozenset({ME}), 4
        played = iter(looks)
        monkeypatch.setattr(watch, "read", lambda: next(played))
        for _ in looks:
            watch.look()
        return watch

    return make


def result(gpu_ms):
    return SimpleNamespace(
        host=SimpleNamespace(n=len(gpu_ms)), gpu=SimpleNamespace(samples_ms=gpu_ms)
    )


FOREIGN = replace(CLEAN_GPU, processes=frozenset({ME, OTHER}), shares=((ME, 60), (OTHER, 19)))


def test_one_observation_per_block_and_the_tag_on_the_right_one(staged):
    looks = [snapshot(0.0), snapshot(1.0), snapshot(2.0, FOREIGN), snapshot(3.0)]
    seen = staged(looks).observations(result(clean_samples(250)))
    assert [o.block for o in seen] == [0, 1, 2]
    assert [bool(o.tags) for o in seen] == [False, True, False]
    assert seen[1].foreign_sm == pytest.approx(0.19)
    assert seen[1].foreign_pids == (OTHER,)
    assert seen[1].start_s == pytest.approx(1.005)
    assert seen[1].end_s == pytest.approx(2.0)


def test_flags_and_sentences_name_what_was_seen_with_numbers(staged):
    looks = [
        snapshot(0.0),
        snapshot(1.0),
        snapshot(2.0, FOREIGN),
        snapshot(3.0, thread_s=2.5, preemptions=9),
    ]
    seen = staged(looks).observations(result(clean_samples(300)))
    assert flags(seen) == ("foreign_gpu_process", "preempted")
    told = describe(seen, run=2)
    assert told[0].replace("\N{NO-BREAK SPACE}", " ") == (
        "processus étranger 200, 19 % des SM pendant le run 2 (bloc 2 sur 3)"
    )
    assert "9 fois" in told[1]
    assert "pendant le run 2 (bloc 3 sur 3)" in told[1]


def test_describe_tells_what_is_not_observable_and_who_is_only_present(staged):
    hidden = replace(CLEAN_GPU, processes=None, shares=None)
    seen = staged([snapshot(0.0, hidden), snapshot(1.0, hidden)]).observations(None)
    assert any("processus du GPU" in what for what in not_observable(seen))
    assert describe(seen, 1) == []
    idle = replace(CLEAN_GPU, processes=frozenset({ME, OTHER}))
    seen = staged([snapshot(0.0, idle), snapshot(1.0, idle)]).observations(result(clean_samples()))
    assert flags(seen) == ()
    assert describe(seen, 1) == ["1 autre(s) processus présent(s) sur le GPU sans calcul, run 1"]


def test_a_clock_lost_between_two_runs_is_seen_in_the_second(staged):
    slow = replace(CLEAN_GPU, sm_mhz=1600)
    watch = staged([snapshot(0.0), snapshot(1.0)])
    assert flags(watch.observations(result(clean_samples()))) == ()
    watch._looks = [snapshot(2.0, slow), snapshot(3.0, slow)]
    assert "gpu_clock_drop" in flags(watch.observations(result(clean_samples())))


def capped(sm_mhz=1400, reasons=4, **changes):
    return replace(CLEAN_GPU, sm_mhz=sm_mhz, reasons=reasons, **changes)


CAPS = {  # GPU at each of four looks, flags of the run, whether the cap is a condition
    "steady": ([capped(power_limited_s=3.0 + i) for i in range(4)], (), True),
    "within NVML's steps": ([capped(), capped(1395), capped(1410), capped()], (), True),
    "begins in the run": ([capped(reasons=0), *[capped()] * 3], ("throttle",), False),
    "comes and goes": ([capped(), capped(), capped(reasons=0), capped()], ("throttle",), False),
    "the clock falls": (
        [capped(), capped(), capped(1200), capped(1200)],
        ("gpu_clock_drop", "throttle"),
        False,
    ),
    "heat beside it": (
        [capped(), capped(reasons=4 | 0x20), capped(), capped()],
        ("throttle",),
        True,
    ),
    "heat by its counter": (
        [capped(thermal_limited_s=0.2 * i) for i in range(4)],
        ("throttle",),
        True,
    ),
}


@pytest.mark.parametrize("case", CAPS)
def test_a_steady_power_cap_is_a_condition_said_once_and_no_throttle(staged, case):
    gpus, expected, steady = CAPS[case]
    looks = [snapshot(float(at), gpu) for at, gpu in enumerate(gpus)]
    seen = staged(looks).observations(result(clean_samples(300)))
    assert set(flags(seen)) == set(expected)
    assert {o.steady_power_cap for o in seen} == {steady}
    runs = disturbances([seen, seen], "les runs")
    assert runs.count("limite de puissance du GPU atteinte en permanence") == int(steady)


def test_looks_that_do_not_surround_the_blocks_are_refused(staged):
    watch = staged([snapshot(0.0), snapshot(1.0)])
    with pytest.raises(ValueError, match="surround the blocks"):
        watch.observations(result(clean_samples(500)))


def test_untagged_keeps_gpu_samples_that_only_the_host_disturbed(staged):
    lost = {"thread_s": 0.5, "preemptions": 9}
    looks = [snapshot(0.0), snapshot(1.0, **lost), snapshot(2.0, FOREIGN, **lost)]
    samples = clean_samples(150)
    seen = staged(looks).observations(result(samples))
    assert untagged(samples, seen, "gpu").sum() == 100
    assert untagged(samples, seen, "host").sum() == 0
    with pytest.raises(ValueError, match="same run"):
        untagged(clean_samples(500), seen, "host")
    with pytest.raises(ValueError, match="clock='wall'"):
        untagged(samples, seen, "wall")


def test_a_real_run_on_the_cpu_is_observed_block_by_block():
    model, images = torch.nn.Linear(8, 3), [torch.zeros(1, 8)]
    watch = Watch("cpu")
    measured = benchmark_latency(model, images, 10, 250, between_blocks=watch.look)
    seen = watch.observations(measured)
    assert len(seen) == 3
    assert not set(flags(seen)) & GPU_RULES.keys()
    assert untagged(measured.host.samples_ms, seen, "host").shape == (250,)


def test_a_watch_reads_a_gpu_from_nvml_to_flags(nvml, monkeypatch):
    monkeypatch.setattr(interference, "nvml_handle", lambda device: "handle")
    monkeypatch.setattr(interference, "own_pids", lambda: frozenset({ME}))
    nvml["nvmlDeviceGetProcessUtilization"] = [sample(OTHER, 90, 5)]  # before the watch began
    watch = Watch("cuda")
    nvml["nvmlDeviceGetComputeRunningProcesses"] = [
        SimpleNamespace(pid=ME),
        SimpleNamespace(pid=OTHER),
    ]
    watch.look()
    nvml["nvmlDeviceGetProcessUtilization"] = [sample(ME, 70, 10), sample(OTHER, 20, 10)]
    watch.look()
    nvml["nvmlDeviceGetProcessUtilization"] = pynvml.NVMLError_NotFound
    watch.look()
    seen = watch.observations(result(clean_samples(200)))
    assert [o.foreign_sm for o in seen] == [0.20, 0.0]
    assert {"foreign_gpu_process"} == set(flags(seen)) & GPU_RULES.keys()
    assert seen[0].sm_mhz == 1980
    assert seen[0].temperature_c == 54


@pytest.mark.gpu
def test_on_a_real_gpu_we_are_not_our_own_foreigner():
    model = torch.nn.Linear(256, 256).cuda()
    watch = Watch("cuda")
    measured = benchmark_latency(model, [torch.zeros(1, 256)], 50, 500, between_blocks=watch.look)
    seen = watch.observations(measured)
    assert len(seen) == 5
    assert all(o.sm_mhz for o in seen)
    assert os.getpid() not in {pid for o in seen for pid in o.foreign_pids}
