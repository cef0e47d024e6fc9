"""Whether torch.compile works, and the reason where it does not."""

import logging
import random
import subprocess

import psutil
import pytest
import torch
import torch._dynamo
import torch._inductor.config

from helpers.environment.compile import CompileCheck, check_compile_once

check_compile = check_compile_once.__wrapped__


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
    assert len(psutil.Process().children(recursive=True)) == children


def test_missing_compiler_is_named():
    with torch._inductor.config.patch({"cpp.cxx": (None, "/no/such/compiler")}):
        check = check_compile("cpu")
    assert not check.usable
    assert "C++ compiler" in check.reason


def failing(monkeypatch, error):
    def fails(probe, **options):
        raise error

    monkeypatch.setattr(torch, "compile", fails)
    return check_compile("cpu").reason


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("C++ compile error\n\nOutput:\nx.cpp:1: fatal error: Python.h: No such", "Python.h: No"),
        ("Command failed\nnvcc warning\nx.cu(3): error: no sm_120", "error: no sm_120"),
        ("Something else\nmore", "RuntimeError: Something else"),
    ],
)
def test_the_compilers_own_line_is_the_reason(said, expected, monkeypatch):
    assert expected in failing(monkeypatch, RuntimeError(said))


def test_no_python_h_is_named_where_the_compilers_words_are_lost(monkeypatch, tmp_path):
    error = subprocess.CalledProcessError(1, ["gcc", "main.c"])
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert "Python.h is missing" in failing(monkeypatch, error)


def test_disabled_compilation_does_not_pass_for_a_working_one():
    with torch._dynamo.config.patch(disable=True):
        check = check_compile("cpu")
    assert not check.usable
    assert check.reason


def test_wrong_result_is_not_usable(monkeypatch):
    wrong = lambda probe, **options: lambda x: (probe(x)[0] + 0.5, True)  # noqa: E731
    monkeypatch.setattr(torch, "compile", wrong)
    assert not check_compile("cpu").usable


@pytest.mark.gpu
def test_compile_on_a_gpu():
    assert check_compile("cuda") == CompileCheck(True, "")
