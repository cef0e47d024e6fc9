"""One look at the GPU and the host, and which process we are."""

import multiprocessing
import os
from types import SimpleNamespace

import nvml_fake
import pynvml
import pytest
import torch
from nvml_fake import ME, OTHER, sample

from helpers.environment.facts import Reader
from helpers.environment.readings import (
    Looker,
    read_gpu,
    read_host,
    this_process,
    utilisation_samples,
)


@pytest.fixture
def nvml(monkeypatch):
    return nvml_fake.install(monkeypatch)


def test_gpu_reading_in_its_units(nvml):
    reading = read_gpu("handle", (), Reader())
    assert reading.power_w == 180.0
    assert reading.power_limited_s == reading.thermal_limited_s == 0.5
    assert reading.processes == {ME}


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


def test_a_looker_forgets_what_was_before_it_and_hands_out_each_sample_once(nvml):
    nvml["nvmlDeviceGetProcessUtilization"] = [sample(OTHER, 90, 5)]
    looker = Looker(torch.device("cuda", 0))
    assert looker().gpu.shares == ()
    nvml["nvmlDeviceGetProcessUtilization"].append(sample(ME, 70, 10))
    look = looker()
    assert look.gpu.shares == ((ME, 70),)
    assert look.start_s <= look.host.at_s <= look.end_s
    assert looker().gpu.shares == ()


def test_what_nvml_refuses_is_named_and_the_rest_is_read(nvml):
    nvml["nvmlDeviceGetProcessUtilization"] = pynvml.NVMLError_NoPermission
    look = Looker("cuda:0")()
    assert look.gpu.shares is None
    assert set(look.failed) == {"shares"}
    assert look.gpu.sm_mhz == 1980


def test_no_gpu_is_looked_at_on_the_cpu():
    assert Looker("cpu")().gpu is None


def test_a_process_knows_itself_and_who_spawned_it(monkeypatch):
    alone = this_process()
    assert alone.pid == os.getpid()
    assert alone.own >= {alone.pid}
    assert not alone.spawned
    parent = SimpleNamespace(pid=os.getppid())
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    assert this_process().spawned
    assert this_process().own >= {os.getpid(), os.getppid()}
