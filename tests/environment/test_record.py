"""The record of the machine; nothing here needs a GPU."""

import subprocess
import time

import pytest
import torch

from helpers import environment
from helpers.environment import facts
from helpers.environment.facts import Reader, collect_facts, cpu_quota, first_line


def test_of_a_long_error_the_line_that_says_most_is_kept_and_is_short():
    said = "backend='x' raised:\n  failed\n\nOutput:\nx.cpp:1: fatal error: Python.h"
    assert first_line(RuntimeError(said)) == "RuntimeError: x.cpp:1: fatal error: Python.h"
    assert len(first_line(RuntimeError("x" * 5000))) == 200


def code():
    """What the record says of this code: its commit, is it dirty, why is it not known."""
    read = Reader()
    return *collect_facts(read)["git"].values(), read.failed.get("git.commit")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.delenv("J1_GIT_COMMIT", raising=False)
    monkeypatch.setattr(facts, "ROOT", tmp_path)
    author = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    for args in (["init", "-q"], [*author, "commit", "--allow-empty", "-q", "-m", "first"]):
        subprocess.run(["git", *args], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def test_git_clean_then_dirty(repository):
    commit, dirty, problem = code()
    assert (len(commit), dirty, problem) == (40, False, None)
    (repository / "new.py").write_text("2\n")
    assert code() == (commit, True, None)


@pytest.mark.parametrize(
    ("folder", "variable", "value", "words"),
    [
        ("copy", "UNUSED", "", "J1_GIT_COMMIT"),  # below a repository of another
        (".", "GIT_TEST_ASSUME_DIFFERENT_OWNER", "1", "dubious ownership"),
        (".", "PATH", "/nonexistent", "git"),
    ],
)
def test_an_unknown_commit_has_its_reason_and_can_be_given(
    repository, monkeypatch, folder, variable, value, words
):
    monkeypatch.setattr(facts, "ROOT", repository / folder)
    monkeypatch.setenv(variable, value)
    *unknown, problem = code()
    assert unknown == [None, None]
    assert words in problem
    monkeypatch.setenv("J1_GIT_COMMIT", "abc123")
    assert code() == ("abc123", None, None)


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("", {"cpu.max": "max 100000"}, None),
        ("a/b", {"cpu.max": "400000 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ("../outside", {"cpu.max": "200000 100000"}, 2.0),  # a namespace begun further down
        ("", {}, None),
    ],
)
def test_cpu_quota_along_the_way_up(group, files, expected, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n", encoding="utf8")
    assert cpu_quota(tmp_path / group) == expected


GOOD = {"software": {"optimize": 0}, "cuda": {"nvml": None}, "cpu": {"quota_cpus": None}}
ABSENT = "NVMLError_LibraryNotFound: NVML Shared Library Not Found"
SECTIONS = [  # what differs from a good machine, which codes fail, which are there besides
    ({"cuda": {"nvml": ABSENT, "torch_gpus": 0}}, set(), set()),
    ({"cuda": {"nvml": ABSENT, "torch_gpus": 1}}, {"nvml"}, set()),
    ({"cuda": {"nvml": "NVMLError_LibRmVersionMismatch", "torch_gpus": 0}}, {"nvml"}, set()),
    ({"gpu": {"mig": True}}, set(), {"mig"}),
    ({"cpu": {"torch_threads": 2, "quota_cpus": 2.0}}, set(), {"quota"}),
    ({"cpu": {"torch_threads": 8, "quota_cpus": 2.0}}, {"quota"}, set()),
    ({"software": {"torch": "1.13.1", "optimize": 1}}, {"torch", "assertions"}, set()),
    ({"compile": {"usable": False, "reason": "x"}}, {"compile"}, set()),
]


def checks_of(facts, sections):
    """The checks, by code, of a record with other sections."""
    whole = {k: facts[k] | v if k in GOOD else v for k, v in (GOOD | sections).items()}
    return {check.code: check for check in environment.check(facts | whole)}


@pytest.mark.parametrize(("sections", "failed", "more"), SECTIONS)
def test_what_does_not_hold_does_not_pass(machine, sections, failed, more):
    checks = checks_of(machine.facts, sections)
    assert {code for code, check in checks.items() if not check.ok} == failed
    assert checks.keys() - checks_of(machine.facts, {}) == more | failed & {"nvml", "quota"}


def test_only_variables_that_change_a_measurement_are_recorded(monkeypatch):
    before = collect_facts(Reader())["variables"]
    given = {"CUDA_LAUNCH_BLOCKING": "1", "CUDNN_LOGINFO": "", "NVIDIA_TF32_OVERRIDE": "0"}
    given |= {"OMP_NUM_THREADS": "2", "PYTORCH_CUDA_ALLOC_CONF": "x"}
    for name, value in (given | {"CUDA_HOME": "/usr", "SECRET": "1"}).items():
        monkeypatch.setenv(name, value)
    assert collect_facts(Reader())["variables"] == before | given


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_cost_is_that_of_this_process_and_of_the_measured_device(monkeypatch):
    cost = environment.cost(time.monotonic() - 5)
    assert 5 <= cost["session_s"] < 60
    assert cost["peak_host_mib"] > 50
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    peaks = {0: 0, 1: 3 * 2**20}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks[device.index])
    devices = ("cuda:1", "cuda:0", "cpu")
    assert [environment.cost(0.0, torch.device(d))["peak_gpu_mib"] for d in devices] == [3, 0, None]
