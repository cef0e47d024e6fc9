"""Only the measurement may end a session: a side reading that raises leaves a complete record."""

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import nvml_fake
import pytest
import torch

from helpers import environment
from helpers.display.machine import MACHINE_CHECKS, cost_sentence, environment_table
from helpers.environment import facts, gpu, nvml, readings
from helpers.environment.compile import CompileCheck
from helpers.environment.readings import Looker, this_process

GPU = torch.device("cuda", 0)
ERRORS = (RuntimeError, AttributeError, OSError)


def fails(owner, name):
    """A side reading that is broken by replacing `name` of `owner`."""

    def inject(monkeypatch, answers, error):
        def broken(*args, **options):
            raise error("injected")

        monkeypatch.setattr(owner, name, broken)

    return inject


def nvml_fails(name):
    def inject(monkeypatch, answers, error):
        answers[name] = error

    return inject


def unreadable(beginning):
    """Files whose path begins so cannot be read."""

    def inject(monkeypatch, answers, error):
        real = Path.read_text

        def read_text(path, *args, **options):
            if str(path).startswith(beginning):
                raise error("injected")
            return real(path, *args, **options)

        monkeypatch.setattr(Path, "read_text", read_text)

    return inject


with pytest.MonkeyPatch.context() as patch:
    QUERIES = list(nvml_fake.install(patch))
SIDES = {
    **{name: nvml_fails(name) for name in QUERIES},
    "/proc/stat": unreadable("/proc/stat"),
    "/proc/self/status": unreadable("/proc/"),
    "/proc/cpuinfo": unreadable("/proc/cpuinfo"),
    "cgroup": unreadable("/proc/self/cgroup"),
    "cpufreq": fails(facts, "_governors"),
    "/sys": unreadable("/sys"),
    "psutil.Process": fails(readings.psutil, "Process"),
    "psutil.cpu_times": fails(readings.psutil, "cpu_times"),
    "psutil.cpu_count": fails(readings.psutil, "cpu_count"),
    "psutil.virtual_memory": fails(readings.psutil, "virtual_memory"),
    "resource": fails(readings.resource, "getrusage"),
    "affinity": fails(facts.os, "sched_getaffinity"),
    "git": fails(facts.subprocess, "run"),
    "os-release": fails(facts.platform, "freedesktop_os_release"),
    "package versions": fails(facts.metadata, "version"),
    "matmul precision": fails(torch, "get_float32_matmul_precision"),
    "TF32": fails(facts, "tf32_in_force"),
    "other code": fails(facts, "find_other_code"),
    "compile check": fails(environment, "check_compile_once"),
    "cudnn": fails(torch.backends.cudnn, "version"),
    "device count": fails(torch.cuda, "device_count"),
    "GPU handle": fails(gpu, "find_gpu"),
    "peak GPU memory": fails(torch.cuda, "max_memory_allocated"),
}
COVERED = {  # another reading stands in, or the value itself says that nothing was seen
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetHandleByPciBusId",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "peak GPU memory",
}


def shape_of(record):
    """The keys of a record at every level."""
    if isinstance(record, dict):
        return {k: shape_of(v) for k, v in record.items() if k not in ("unreadable", "failed")}
    return None


def session():
    """The record, a look and the cost of a session on a GPU that only NVML's stand-in has."""
    machine = environment.look("auto")
    seen, cost = Looker(GPU)(), environment.cost()
    assert this_process().cpus >= 1
    assert cost_sentence(cost)
    assert environment_table(machine).map(bool).all(axis=None)
    told = [MACHINE_CHECKS[c.code][1 if c.ok else 2].format(**c.values) for c in machine.checks]
    assert all(told)
    return {"record": machine.facts, "look": asdict(seen), "cost": cost, "told": told}


@pytest.fixture
def answers(monkeypatch):
    monkeypatch.setattr(environment, "check_compile_once", lambda device: CompileCheck(True, ""))
    monkeypatch.setattr(gpu, "find_cuda_problem", lambda device: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setenv("J1_GIT_COMMIT", "")
    return nvml_fake.install(monkeypatch)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("side", SIDES)
def test_a_side_reading_that_raises_leaves_a_complete_record(side, error, answers, monkeypatch):
    """Any exception, any side reading; its words are kept where something is lost."""
    whole = session()
    SIDES[side](monkeypatch, answers, error)
    found = session()
    for part in ("record", "cost"):
        assert shape_of(found[part]) | {"gpu": None} == shape_of(whole[part]) | {"gpu": None}
    assert json.dumps(found["record"], allow_nan=False)
    assert "injected" in str(found) or side in COVERED


@pytest.mark.parametrize("error", [*ERRORS, SyntaxError, ImportError])
def test_a_pynvml_that_cannot_be_imported_is_named_with_what_to_type(error, answers, monkeypatch):
    """An old `pynvml` package in front of nvidia-ml-py."""

    class Broken:
        def find_spec(self, name, *_):
            if name == "pynvml":
                raise error("old package")

    monkeypatch.delitem(sys.modules, "pynvml")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    try:
        importlib.reload(nvml)
        found = session()
    finally:
        monkeypatch.undo()
        importlib.reload(nvml)
    assert "old package" in found["record"]["cuda"]["nvml"]
    assert any("pip install nvidia-ml-py" in told for told in found["told"])


def test_an_old_pynvml_is_read_as_far_as_it_goes(answers, monkeypatch):
    """It lacks newer names, answers in bytes, and is a package rather than a module."""
    monkeypatch.setattr(nvml.pynvml, "__path__", [], raising=False)
    monkeypatch.delattr(nvml.pynvml, "nvmlDeviceGetCurrentClocksEventReasons")
    monkeypatch.delattr(nvml.pynvml, "nvmlDeviceGetProcessUtilization")
    answers["nvmlSystemGetDriverVersion"] = b"580.95.05"
    found = session()
    assert found["record"]["cuda"]["driver"] == "580.95.05"
    assert found["record"]["gpu"]["sm_clock_mhz"] == found["look"]["gpu"]["sm_mhz"] == 1980
    assert found["look"]["gpu"]["reasons"] == 4
    assert found["look"]["gpu"]["shares"] is None
    assert any("pip uninstall pynvml" in told for told in found["told"])
