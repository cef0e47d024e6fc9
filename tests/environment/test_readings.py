"""Side readings: what one look sees, and that one which raises leaves a complete record."""

import json
import multiprocessing
import os
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import nvml_fake
import pynvml
import pytest
import torch
from nvml_fake import ME, OTHER, sample

from helpers import environment
from helpers.display.machine import MACHINE_CHECKS, cost_sentence, environment_table
from helpers.environment import facts, readings
from helpers.environment.readings import Looker, this_process

UTILISATION = "nvmlDeviceGetProcessUtilization"
OWNERS = {  # of the functions that side readings call
    **dict.fromkeys(("Process", "cpu_times", "cpu_count"), readings.psutil),
    **dict.fromkeys(("device_count", "max_memory_allocated"), torch.cuda),
    "getrusage": readings.resource,
    "sched_getaffinity": readings.os,
    "run": facts.subprocess,  # git
    "version": torch.backends.cudnn,
}
FILES = ("/proc/stat", "/proc/", "/proc/cpuinfo", "/proc/self/cgroup")
FACTS = [(section, key) for section, table in facts.FACTS.items() for key in table]
FACTS.remove(("software", "torch"))  # an attribute of torch
with pytest.MonkeyPatch.context() as patch:
    QUERIES = list(nvml_fake.install(patch))
COVERED = {  # another reading stands in, or the value itself says that nothing was seen
    *("nvmlDeviceGetHandleByUUID", "nvmlDeviceGetHandleByPciBusId", "nvmlDeviceGetMigMode"),
    *("nvmlDeviceGetGraphicsRunningProcesses", "max_memory_allocated"),
}


def shape_of(record):
    """The keys of a record at every level, those of a GPU and of the reasons apart."""
    apart = ("unreadable", "gpu")
    kept = {k: v for k, v in record.items() if k not in apart} if isinstance(record, dict) else {}
    return {key: shape_of(value) for key, value in kept.items()}


def session():
    """The record, a look and the cost of a session on a GPU that only NVML's stand-in has."""
    machine = environment.look("auto")
    seen, cost = Looker(torch.device("cuda", 0))(), environment.cost(0.0)
    assert this_process().cpus >= 1
    assert cost_sentence(cost)
    assert environment_table(machine).map(bool).all(axis=None)
    told = [MACHINE_CHECKS[c.code][1 if c.ok else 2].format(**c.values) for c in machine.checks]
    assert all(told)
    return {"record": machine.facts, "look": asdict(seen), "cost": cost, "told": told}


@pytest.fixture
def answers(monkeypatch, compiles):
    monkeypatch.setattr(environment, "find_cuda_problem", lambda device: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setenv("J1_GIT_COMMIT", "")
    return nvml_fake.install(monkeypatch)


@pytest.mark.parametrize("error", [RuntimeError, AttributeError, OSError])
@pytest.mark.parametrize("side", [*QUERIES, *OWNERS, *FILES, *FACTS], ids=str)
def test_a_side_reading_that_raises_leaves_a_complete_record(side, error, answers, monkeypatch):
    """Any exception, any side reading; its words are kept where something is lost."""
    whole, read_text = session(), Path.read_text

    def broken(*args, **options):
        raise error("injected")

    def unreadable(path, *args, **options):
        return (broken if str(path).startswith(side) else read_text)(path, *args, **options)

    if side in answers:
        answers[side] = error
    elif side in OWNERS:
        monkeypatch.setattr(OWNERS[side], side, broken)
    elif side in FILES:
        monkeypatch.setattr(Path, "read_text", unreadable)
    else:
        monkeypatch.setitem(facts.FACTS[side[0]], side[1], broken)
    found = session()
    assert shape_of(found["record"]) == shape_of(whole["record"])
    assert json.loads(json.dumps(found["record"], allow_nan=False)) == found["record"]
    assert "injected" in str(found) or side in COVERED


def test_without_pynvml_a_session_says_so(answers, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = session()
    assert "pynvml" in found["record"]["cuda"]["nvml"]
    assert found["look"]["gpu"] is None
    assert any("pynvml" in told for told in found["told"])


def test_looks_in_their_units_whose_counters_never_fall(answers):
    looker = Looker(torch.device("cuda", 0))
    before, after = looker(), looker()
    assert after.failed == {}
    assert after.gpu.processes == {ME}
    assert after.gpu.power_limited_s == after.gpu.thermal_limited_s == 0.5
    assert set(after.host.steal_s) >= os.sched_getaffinity(0)
    for name in ("at_s", "busy_s", "own_s", "thread_s", "preemptions"):
        assert getattr(after.host, name) >= getattr(before.host, name)


def test_each_valid_sample_is_handed_out_once_and_none_from_before_the_looker(answers):
    answers[UTILISATION] = [sample(OTHER, 90, 900)]
    looker = Looker("cuda:0")
    assert looker().gpu.shares == ()
    answers[UTILISATION] += [sample(ME, 60, 2000), sample(OTHER, 20, 1500)]
    answers[UTILISATION].append(sample(0, 4_000_000, 2100))  # an unused entry
    assert looker().gpu.shares == ((ME, 60), (OTHER, 20))
    assert looker().gpu.shares == ()


@pytest.mark.parametrize(("error", "shares"), [("NotFound", ()), ("NoPermission", None)])
def test_no_sample_is_an_answer_and_a_refusal_is_named(answers, error, shares):
    answers[UTILISATION] = getattr(pynvml, f"NVMLError_{error}")
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
