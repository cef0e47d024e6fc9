"""The record of the machine; nothing here needs a GPU."""

import json
import subprocess

import numpy as np
import pytest
import torch

from helpers import environment
from helpers.environment.facts import (
    ROOT,
    Reader,
    attempt,
    collect_facts,
    collect_git,
    cpu_quota,
    find_other_code,
    first_line,
)


def test_record_survives_json_and_is_that_of_this_process(machine):
    facts = machine.facts
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["software"]["torch"] == torch.__version__
    assert facts["software"]["numpy"] == np.__version__
    assert facts["cpu"]["torch_threads"] == torch.get_num_threads()
    assert facts["cpu"]["usable_cores"] <= facts["cpu"]["logical_cores"]


def test_interrupting_is_not_swallowed():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(interrupted)


def test_first_line_says_something_and_is_short():
    assert first_line(RuntimeError("\nbackend='inductor' raised:\n  no compiler\nSet X")) == (
        "RuntimeError: no compiler"
    )
    assert first_line(RuntimeError()) == "RuntimeError"
    assert len(first_line(RuntimeError("x" * 5000))) == 200


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.delenv("J1_GIT_COMMIT", raising=False)

    def git(*args):
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", "-C", tmp_path, *identity, *args], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "code.py").write_text("1\n")
    git("add", "code.py")
    git("commit", "-q", "-m", "first")
    return tmp_path


def test_git_clean_then_dirty(repository):
    clean = collect_git(repository)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (repository / "new.py").write_text("2\n")
    assert collect_git(repository) == clean | {"dirty": True}


@pytest.mark.parametrize(
    ("folder", "variables", "words"),
    [
        # A folder above may be a repository of its own: its commit is not taken.
        ("copy", {}, "J1_GIT_COMMIT"),
        # git's own way of testing a project that another user owns
        (".", {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, "git config --global --add safe.directory"),
        (".", {"PATH": "/nonexistent"}, "git"),
    ],
    ids=["a copy", "another owner", "no git"],
)
def test_why_the_commit_is_not_known_and_it_can_be_given(
    repository, monkeypatch, folder, variables, words
):
    (repository / "copy").mkdir()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = collect_git(repository / folder)
    assert (found["commit"], found["dirty"]) == (None, None)
    assert words in found["problem"]
    monkeypatch.setenv("J1_GIT_COMMIT", "abc123")
    given = {"commit": "abc123", "dirty": None, "problem": None}
    assert collect_git(repository / folder) == given


QUOTAS = [
    ("0::/", {"cpu.max": "max 100000"}, None),
    ("0::/", {"cpu.max": "150000 100000"}, 1.5),
    ("0::/a/b", {"cpu.max": "400000 100000", "a/cpu.max": "50000 100000"}, 0.5),
    ("0::/../outside", {"cpu.max": "200000 100000"}, 2.0),  # a namespace begun further down
    ("0::/a", {}, None),
    ("", {}, None),
    (
        "4:cpu,cpuacct:/d",
        {"cpu,cpuacct/d/cpu.cfs_quota_us": "250000", "cpu,cpuacct/d/cpu.cfs_period_us": "100000"},
        2.5,
    ),
    ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ("3:cpuset:/\n0::/", {"unified/cpu.max": "300000 100000"}, 3.0),
]


@pytest.mark.parametrize(("groups", "files", "expected"), QUOTAS)
def test_cpu_quota_of_either_version_along_the_way_up(groups, files, expected, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n", encoding="utf8")
    assert cpu_quota(groups, tmp_path) == expected


def test_what_does_not_hold_does_not_pass(checks_of):
    assert all(check.ok for code, check in checks_of().items() if code != "assertions")
    found = checks_of(
        software={"torch": "1.13.1", "optimize": 1},
        compile={"usable": False, "reason": "InvalidCxxCompiler"},
        other_code="elsewhere",
        cpu={"torch_threads": 8, "quota_cpus": 2.0},
    )
    failed = {code for code, check in found.items() if not check.ok}
    assert failed == {"torch", "compile", "code", "assertions", "quota"}
    assert checks_of(cpu={"torch_threads": 2, "quota_cpus": 2.0})["quota"].ok
    assert "quota" not in checks_of(cpu={"quota_cpus": None})


def test_only_variables_that_change_a_measurement_are_recorded(monkeypatch):
    for name in collect_facts(Reader())["variables"]:
        monkeypatch.delenv(name)
    given = {"CUDA_LAUNCH_BLOCKING": "1", "CUDNN_LOGINFO": "", "NVIDIA_TF32_OVERRIDE": "0"}
    given |= {"OMP_NUM_THREADS": "2", "PYTORCH_CUDA_ALLOC_CONF": "x"}
    for name, value in (given | {"CUDA_HOME": "/usr", "SECRET": "1"}).items():
        monkeypatch.setenv(name, value)
    assert collect_facts(Reader())["variables"] == given


def test_another_helpers_than_the_notebooks_is_told(tmp_path):
    """Another `helpers` is first on PYTHONPATH."""
    assert find_other_code(tmp_path) is None  # no notebook here: it cannot be told
    (tmp_path / "J1_benchmark.ipynb").touch()
    (tmp_path / "helpers").mkdir()
    told = find_other_code(tmp_path)
    assert str(tmp_path) in told
    assert str(ROOT) in told
    assert find_other_code(ROOT) is None


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_cost_is_that_of_this_process_and_of_the_measured_device(monkeypatch):
    cost = environment.cost()
    assert 0 < cost["wall_s"] < 24 * 3600
    assert cost["peak_host_mib"] > 50
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    peaks = {0: 0, 1: 3 * 2**20}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks[device.index])
    devices = ("cuda:1", "cuda:0", "cpu")
    assert [environment.cost(torch.device(d))["peak_gpu_mib"] for d in devices] == [3, 0, None]
