"""Whether torch.compile works, and the reason where it does not."""

import logging
import random
import subprocess

import psutil
import pytest
import torch
import torch._dynamo
import torch._inductor.config

from helpers.environment import (
    CompileCheck,
    check_compile,
)
from helpers.environment.compile import NOT_COMPILED


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


@pytest.mark.gpu
def test_compile_on_a_gpu():
    assert check_compile("cuda") == CompileCheck(True, "")
