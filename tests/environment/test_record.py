"""The record of the machine, its checks and its tables; nothing here needs a GPU."""

import json
import logging
import os
import random
import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch
import torch._dynamo
import torch._inductor.config

from helpers import environment
from helpers.environment import (
    CompileCheck,
    check_compile,
    check_environment,
    choose_device,
    collect_environment,
    environment_table,
    fixed_conditions,
)
from helpers.environment import facts as environment_facts
from helpers.environment.compile import NOT_COMPILED
from helpers.environment.facts import (
    Reader,
    attempt,
    collect_cpu,
    collect_git,
    collect_software,
    collect_switches,
    collect_system,
    collect_variables,
    cpu_quota,
    find_other_code,
    first_line,
)

CONDITIONS = {
    "model": "resnet18",
    "train_epochs": 0,
    "train_images": 0,
    "precision": "fp32",
    "batch_size": 1,
    "input_shape": (1, 3, 32, 32),
    "warmup_iters": 50,
    "measure_iters": 500,
    "runs": 3,
}
GPU = {
    "name": "NVIDIA H100",
    "uuid": "GPU-1",
    "compute_capability": "9.0",
    "memory_gib": 79.2,
    "multiprocessors": 132,
    "sm_clock_mhz": 1980,
    "sm_clock_max_mhz": 1980,
    "memory_clock_mhz": 2619,
    "memory_clock_max_mhz": 2619,
    "power_limit_w": 700.0,
    "temperature_c": 54,
    "ecc": True,
    "persistence_mode": None,
}


@pytest.fixture(scope="module")
def env():
    """The real record of this machine, on the CPU, with the compiler's answer given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "check_compile_once", lambda device: CompileCheck(True, ""))
        return collect_environment(choose_device("cpu"))


def blank(record: dict) -> dict:
    """The same record on a machine that shows nothing at all."""
    return {
        key: blank(value) if isinstance(value, dict) else [] if isinstance(value, list) else None
        for key, value in record.items()
    }


def test_record_survives_json(env):
    assert json.loads(json.dumps(env, allow_nan=False)) == env


def test_record_of_the_cpu(env):
    assert env["device"] == "cpu"
    assert env["gpu"] is None
    assert env["other_code"] is None


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


def test_reading_the_switches_changes_none():
    before = collect_switches(Reader())
    assert collect_switches(Reader()) == before


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (True, ("ieee",), True),
        (None, ("none", "tf32"), True),
        (None, ("none", "none", "none"), False),
        (None, ("ieee", "tf32"), False),
        (None, (None, None), None),
    ],
)
def test_tf32_in_force(old, new, expected):
    assert environment_facts._tf32(old, *new) is expected


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


def test_dropped_assertions_are_told():
    """Attack A17: PYTHONOPTIMIZE=1."""
    code = (
        "from helpers import environment as e; from helpers.environment.facts import *;"
        "print(collect_software(Reader())['optimize'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=environment_facts.ROOT,
        env=os.environ | {"PYTHONOPTIMIZE": "1"},
    )
    assert done.stdout.strip() == "1"


def test_dropped_assertions_do_not_pass(env):
    """Attack A17."""
    check = by_name(env | {"software": env["software"] | {"optimize": 1}})["Assertions"]
    assert not check.ok
    assert "PYTHONOPTIMIZE" in check.detail
    assert by_name(env)["Assertions"].ok


# --- torch.compile ----------------------------------------------------------------------------


def test_compile_gives_an_answer_and_leaves_nothing_behind(capfd):
    seeds = torch.get_rng_state(), random.getstate()
    children = len(psutil.Process().children(recursive=True))
    level = logging.root.manager.disable
    check = check_compile("cpu")
    assert check.usable == (check.reason == "")
    assert capfd.readouterr() == ("", "")
    assert torch.equal(seeds[0], torch.get_rng_state())
    assert seeds[1] == random.getstate()
    assert logging.root.manager.disable == level
    assert torch.is_grad_enabled()
    assert len(psutil.Process().children(recursive=True)) == children


def test_missing_compiler_is_named():
    with torch._inductor.config.patch({"cpp.cxx": (None, "/no/such/compiler")}):
        check = check_compile("cpu")
    assert not check.usable
    assert "C++ compiler" in check.reason
    assert len(check.reason) <= 200


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("C++ compile error\n\nCommand:\ng++ -O3 x.cpp\n\nOutput:\nx.cpp:1:10: fatal error: "
         "Python.h: No such file or directory\n", "fatal error: Python.h"),
        ("Command failed\nnvcc warning\nx.cu(3): error: no sm_120", "error: no sm_120"),
        ("Something else\nmore", "RuntimeError: Something else"),
    ],
)  # fmt: skip
def test_the_compilers_own_line_is_the_reason(said, expected, monkeypatch):
    def fails(probe, **options):
        raise RuntimeError(said)

    monkeypatch.setattr(torch, "compile", fails)
    check = check_compile("cpu")
    assert not check.usable
    assert expected in check.reason


def test_no_python_h_is_named_where_the_compilers_words_are_lost(monkeypatch, tmp_path):
    def fails(probe, **options):
        raise subprocess.CalledProcessError(1, ["gcc", "main.c"])

    monkeypatch.setattr(torch, "compile", fails)
    assert "Python.h" not in check_compile("cpu").reason
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert "Python.h is missing" in check_compile("cpu").reason


def test_disabled_compilation_does_not_pass_for_a_working_one():
    with torch._dynamo.config.patch(disable=True):
        assert check_compile("cpu") == CompileCheck(False, NOT_COMPILED)


def test_wrong_result_is_not_usable(monkeypatch):
    def wrong(probe, **options):
        return lambda x: (probe(x)[0] + 0.5, True)

    monkeypatch.setattr(torch, "compile", wrong)
    assert check_compile("cpu").reason == "compiled and eager results differ by 0.5"


def test_unsupported_python_is_reported(monkeypatch):
    def unsupported(probe, **options):
        raise RuntimeError("torch.compile is not supported on Python 3.99+")

    monkeypatch.setattr(torch, "compile", unsupported)
    assert "Python 3.99+" in check_compile("cpu").reason


@pytest.mark.gpu
def test_compile_on_a_gpu():
    assert check_compile("cuda") == CompileCheck(True, "")


# --- checks and tables ------------------------------------------------------------------------


def by_name(env: dict) -> dict:
    return {check.name: check for check in check_environment(env)}


def test_a_machine_without_gpu_passes_with_a_banner(env):
    cuda = env["cuda"] | {"diagnosis": "none", "nvml": "NVMLError_LibraryNotFound: …"}
    checks = by_name(env | {"cuda": cuda | {"torch_gpus": 0, "nvml_remedy": None}})
    assert all(check.ok for check in checks.values())
    assert "tout est mesuré sur le CPU" in checks["GPU"].detail


def test_old_torch_and_broken_compiler_do_not_pass(env):
    old = env | {
        "software": env["software"] | {"torch": "1.13.1"},
        "compile": {"usable": False, "reason": "InvalidCxxCompiler"},
    }
    checks = by_name(old)
    assert not checks["PyTorch ≥ 2.0"].ok
    assert not checks["torch.compile"].ok
    assert "InvalidCxxCompiler" in checks["torch.compile"].detail


def test_table_on_the_cpu(env):
    table = environment_table(env)
    assert list(table.columns) == ["Valeur"]
    assert table.index.is_unique
    assert table.loc["GPU", "Valeur"] == "non utilisé"
    assert table.map(lambda value: isinstance(value, str) and value != "").all(axis=None)


def test_table_on_a_gpu(env):
    table = environment_table(env | {"gpu": GPU})["Valeur"]
    assert table["GPU"] == "NVIDIA H100, capacité de calcul 9.0, 79,2 Gio"
    assert table["Horloge SM / maximale (MHz)"] == "1980 / 1980"
    assert table["ECC / mode persistant"] == "oui / non visible"


def test_tables_of_a_machine_that_shows_nothing(env):
    shown = blank(env) | {"gpu": None, "variables": {}}
    assert "None" not in environment_table(shown).to_string()
    assert "None" not in fixed_conditions(shown, **CONDITIONS).to_string()
    shown = shown | {"gpu": blank(GPU)}
    assert environment_table(shown)["Valeur"]["CPU"] == "non visible"


def test_fixed_conditions_on_each_device(env):
    cpu = fixed_conditions(env, **CONDITIONS)["Valeur"]
    assert cpu["Appareil"].startswith("CPU ")
    assert "Pilote" not in cpu
    assert cpu["Forme de l'entrée"] == "1×3×32×32"
    assert cpu["Modèle"] == "resnet18"
    trained = fixed_conditions(env, **CONDITIONS | {"train_epochs": 40, "train_images": 500})[
        "Valeur"
    ]
    assert trained["Modèle"] == "resnet18, 40 époques sur 500 images"
    unknown = fixed_conditions(env, **CONDITIONS | {"model": None, "train_epochs": None})
    assert unknown["Valeur"]["Modèle"] == "non visible"
    gpu = fixed_conditions(env | {"gpu": GPU}, **CONDITIONS)["Valeur"]
    assert gpu["Appareil"] == "NVIDIA H100"
    assert {"CUDA", "Pilote"} <= set(gpu.index)
