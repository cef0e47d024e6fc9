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
    def state():
        children = psutil.Process().children(recursive=True)
        return random.getstate(), logging.root.manager.disable, len(children)

    before, seed = state(), torch.get_rng_state()
    check = check_compile("cpu")
    assert check.usable == (check.reason == "")
    assert capfd.readouterr() == ("", "")
    assert state() == before
    assert torch.equal(seed, torch.get_rng_state())


def test_missing_compiler_is_named():
    with torch._inductor.config.patch({"cpp.cxx": (None, "/no/such/compiler")}):
        check = check_compile("cpu")
    assert not check.usable
    assert "C++ compiler" in check.reason


def test_no_python_h_is_named_where_the_compilers_words_are_lost(monkeypatch, tmp_path):
    def fails(probe, **options):
        raise subprocess.CalledProcessError(1, ["gcc", "main.c"])

    monkeypatch.setattr(torch, "compile", fails)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert "Python.h is missing" in check_compile("cpu").reason


def test_neither_disabled_compilation_nor_a_wrong_result_passes(monkeypatch):
    with torch._dynamo.config.patch(disable=True):
        check = check_compile("cpu")
    assert not check.usable
    assert check.reason
    wrong = lambda probe, **options: lambda x: (probe(x)[0] + 0.5, True)  # noqa: E731
    monkeypatch.setattr(torch, "compile", wrong)
    assert not check_compile("cpu").usable


@pytest.mark.gpu
def test_compile_on_a_gpu():
    assert check_compile("cuda") == CompileCheck(True, "")
