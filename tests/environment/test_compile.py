"""Whether torch.compile works, and the reason where it does not."""

import logging
import os
import random
import subprocess
import sys
import warnings
from contextlib import suppress

import psutil
import pytest
import torch
import torch._dynamo
import torch._inductor.config

from helpers.environment.compile import compile_problem, quiet

compile_problem = compile_problem.__wrapped__


def test_compile_gives_an_answer_and_leaves_nothing_behind(capfd):
    def state():
        children = psutil.Process().children(recursive=True)
        return random.getstate(), logging.root.manager.disable, len(children)

    before, seed = state(), torch.get_rng_state()
    compile_problem("cpu")
    assert capfd.readouterr() == ("", "")
    assert state() == before
    assert torch.equal(seed, torch.get_rng_state())


def fails(probe, **options):
    raise subprocess.CalledProcessError(1, ["gcc", "main.c"])  # the compiler's words are lost


@pytest.mark.parametrize(
    ("owner", "name", "value", "told"),
    [
        (torch._inductor.config.cpp, "cxx", (None, "/no/such/compiler"), "C++ compiler"),
        (torch, "compile", fails, "Python.h is missing"),
        (torch, "compile", lambda f, **_: lambda x: (f(x)[0] + 0.5, True), "AssertionError"),
    ],
    ids=["no compiler", "no Python.h", "a wrong result"],
)
def test_what_does_not_work_is_named(monkeypatch, tmp_path, owner, name, value, told):
    monkeypatch.setattr(owner, name, value)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert told in compile_problem("cpu")


def test_a_compiler_that_is_disabled_is_named():
    with torch._dynamo.config.patch(disable=True):  # monkeypatch would hide the setting for good
        assert "disabled" in compile_problem("cpu")


def test_nothing_is_written_to_stderr_meanwhile(capfd):
    with suppress(KeyError), quiet():
        os.write(2, b"from C++")
        logging.getLogger("torch").error("logged")
        warnings.warn("warned", stacklevel=1)
        raise KeyError
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == "after\n"


@pytest.mark.gpu
def test_compile_on_a_gpu():
    assert compile_problem("cuda") == ""
