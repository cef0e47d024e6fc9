"""One look at the GPU and the host, and which process we are."""

import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import nvml_fake
import pynvml
import pytest
import torch
from nvml_fake import ME, OTHER, sample

from helpers.environment.readings import Looker, this_process

UTILISATION = "nvmlDeviceGetProcessUtilization"


@pytest.fixture
def nvml(monkeypatch):
    return nvml_fake.install(monkeypatch)


def test_looks_in_their_units_whose_counters_never_fall(nvml):
    looker = Looker(torch.device("cuda", 0))
    before, after = looker(), looker()
    assert after.failed == {}
    assert after.gpu.processes == {ME}
    assert after.gpu.power_limited_s == after.gpu.thermal_limited_s == 0.5
    assert after.start_s <= after.host.at_s <= after.end_s
    assert set(after.host.steal_s) >= os.sched_getaffinity(0)
    for name in ("at_s", "busy_s", "own_s", "thread_s", "preemptions"):
        assert getattr(after.host, name) >= getattr(before.host, name)


def test_each_valid_sample_is_handed_out_once_and_none_from_before_the_looker(nvml):
    nvml[UTILISATION] = [sample(OTHER, 90, 900)]
    looker = Looker("cuda:0")
    assert looker().gpu.shares == ()
    nvml[UTILISATION] += [sample(ME, 60, 2000), sample(OTHER, 20, 1500)]
    nvml[UTILISATION].append(sample(0, 4_000_000, 2100))  # an unused entry
    assert looker().gpu.shares == ((ME, 60), (OTHER, 20))
    assert looker().gpu.shares == ()


@pytest.mark.parametrize(("error", "shares"), [("NotFound", ()), ("NoPermission", None)])
def test_no_sample_is_an_answer_and_a_refusal_is_named(nvml, error, shares):
    nvml[UTILISATION] = getattr(pynvml, f"NVMLError_{error}")
    look = Looker("cuda:0")()
    assert look.gpu.shares == shares
    assert set(look.failed) == (set() if shares == () else {"shares"})
    assert look.gpu.sm_mhz == 1980
    assert Looker("cpu")().gpu is None


def test_a_process_knows_itself_and_who_spawned_it(monkeypatch):
    alone = this_process()
    assert (alone.pid, alone.spawned) == (os.getpid(), False)
    status = {os.getpid(): "NSpid:\t1\t777\n", os.getppid(): "Name: x\nNSpid:\t2\t778\n"}
    parent = SimpleNamespace(pid=os.getppid())
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(Path, "read_text", lambda path: status[int(path.parent.name)])
    spawned = this_process()
    assert spawned.spawned
    assert spawned.own == {os.getpid(), os.getppid(), 1, 2, 777, 778}
