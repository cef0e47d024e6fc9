"""The record of the machine; nothing here needs a GPU."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from helpers.environment import (
    check_environment,
    environment_table,
)
from helpers.environment import facts as environment_facts
from helpers.environment.facts import (
    Reader,
    attempt,
    collect_cpu,
    collect_git,
    collect_software,
    collect_system,
    collect_variables,
    cpu_quota,
    find_other_code,
    first_line,
)


def by_name(env: dict) -> dict:
    return {check.name: check for check in check_environment(env)}


def test_record_survives_json(env):
    assert json.loads(json.dumps(env, allow_nan=False)) == env


def test_software_and_cpu_are_those_of_this_process():
    software, cpu = collect_software(Reader()), collect_cpu(Reader())
    assert software["torch"] == torch.__version__
    assert software["numpy"] == np.__version__
    assert cpu["torch_threads"] == torch.get_num_threads()
    assert cpu["usable_cores"] <= cpu["logical_cores"]
    assert collect_system(Reader())["kernel"] == os.uname().release


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


# --- TF32 -------------------------------------------------------------------------------------

READ = """
seen = collect_switches(Reader())
print(seen["tf32_convolutions"], seen["tf32_matmul"], seen["cudnn.allow_tf32"])
"""
OLDER = [
    ("", "True False True"),
    ("torch.backends.cudnn.allow_tf32 = False", "False False False"),
    ("torch.backends.cuda.matmul.allow_tf32 = True", "False True False"),
]
# The newer interface makes the older one unreadable; the truth must still be told.
NEWER = [
    ("torch.backends.cudnn.conv.fp32_precision = 'ieee'", "False False None"),
    ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", "False True None"),
    ("torch.backends.cudnn.conv.fp32_precision = 'tf32'", "True True"),
]


@pytest.mark.parametrize("steps", [OLDER, NEWER], ids=["older", "newer"])
def test_tf32_is_read_through_either_interface(steps):
    """In a process of its own: mixing the interfaces cannot be undone."""
    if steps is NEWER and not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("this torch has only the older interface")
    imports = "import torch\nfrom helpers.environment.facts import Reader, collect_switches\n"
    code = imports + "".join(f"{setting}\n{READ}" for setting, _ in steps)
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=environment_facts.ROOT
    )
    for line, (_, expected) in zip(done.stdout.splitlines(), steps, strict=True):
        assert line.startswith(expected)


# --- git --------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path):
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


def test_a_copy_without_git_says_its_commit_by_variable(tmp_path, monkeypatch):
    """Case 20: what git lacks, and the remedy."""
    monkeypatch.delenv("J1_GIT_COMMIT", raising=False)
    found = collect_git(tmp_path)
    assert found["commit"] is None
    assert "J1_GIT_COMMIT" in found["problem"]
    monkeypatch.setenv("J1_GIT_COMMIT", "abc123")
    assert collect_git(tmp_path) == {"commit": "abc123", "dirty": None, "problem": None}


def test_dubious_ownership_keeps_gits_words_and_remedy(repository, env, monkeypatch):
    """Case 20: a project that another user owns."""
    monkeypatch.delenv("J1_GIT_COMMIT", raising=False)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own way of testing this
    monkeypatch.setenv("LC_ALL", "fr_FR.UTF-8")
    found = collect_git(repository)
    assert found["commit"] is None
    assert "dubious ownership" in found["problem"]
    assert "git config --global --add safe.directory" in found["problem"]
    assert "safe.directory" in environment_table(env | {"git": found})["Valeur"]["Commit git"]


def test_a_commit_that_is_given_counts_more_than_an_old_git_folder(repository, monkeypatch):
    monkeypatch.setenv("J1_GIT_COMMIT", "abc123")
    assert collect_git(repository) == {"commit": "abc123", "dirty": None, "problem": None}


def test_commit_of_a_folder_above_is_not_taken(repository, monkeypatch):
    monkeypatch.delenv("J1_GIT_COMMIT", raising=False)
    (repository / "copy").mkdir()
    assert collect_git(repository / "copy")["commit"] is None


def test_git_not_installed(repository, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("J1_GIT_COMMIT", raising=False)
    found = collect_git(repository)
    assert (found["commit"], found["dirty"]) == (None, None)
    assert "git" in found["problem"]


# --- what the surroundings impose ---


def test_only_variables_that_change_a_measurement_are_recorded_and_shown(env, monkeypatch):
    for name in collect_variables():
        monkeypatch.delenv(name)
    assert collect_variables() == {}
    bare = environment_table(env | {"variables": {}}).index
    given = {"CUDA_LAUNCH_BLOCKING": "1", "NVIDIA_TF32_OVERRIDE": "0", "OMP_NUM_THREADS": "2"}
    given |= {
        "PYTORCH_CUDA_ALLOC_CONF": "x",
        "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
        "CUDNN_LOGINFO": "",
    }
    for name, value in (given | {"CUDA_HOME": "/usr", "SECRET": "1"}).items():
        monkeypatch.setenv(name, value)
    assert collect_variables() == given
    table = environment_table(env | {"variables": given})
    (row,) = set(table.index) - set(bare)
    assert "CUDA_LAUNCH_BLOCKING=1" in table["Valeur"][row]


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


@pytest.mark.parametrize(("threads", "quota", "ok"), [(8, 2.0, False), (2, 2.0, True)])
def test_threads_beyond_the_quota_are_said(env, threads, quota, ok):
    cpu = env["cpu"] | {"torch_threads": threads, "quota_cpus": quota}
    assert by_name(env | {"cpu": cpu})["Quota de CPU"].ok == ok
    assert "Quota de CPU" not in by_name(env | {"cpu": cpu | {"quota_cpus": None}})


def test_another_helpers_than_the_notebooks_is_told(env, tmp_path):
    """Attack A16: another `helpers` first on PYTHONPATH."""
    assert find_other_code(tmp_path) is None  # no notebook here: it cannot be told
    (tmp_path / "J1_benchmark.ipynb").touch()
    assert find_other_code(tmp_path) is None
    (tmp_path / "helpers").mkdir()
    told = find_other_code(tmp_path)
    assert str(tmp_path) in told
    assert str(environment_facts.ROOT) in told
    assert find_other_code(environment_facts.ROOT) is None
    (check,) = [c for c in check_environment(env | {"other_code": told}) if not c.ok]
    assert told in check.detail


def test_dropped_assertions_do_not_pass(env):
    """Attack A17."""
    check = by_name(env | {"software": env["software"] | {"optimize": 1}})["Assertions"]
    assert not check.ok
    assert "PYTHONOPTIMIZE" in check.detail
    assert by_name(env)["Assertions"].ok
