"""Fresh processes: what comes back, and how those that give no answer are told."""

import os
import signal
import time

import pytest
import torch
from fakes import TinyNet

from helpers.models import build_model
from helpers.validation.processes import (
    FreshProcessError,
    NotPortableError,
    in_fresh_process,
    pack_model,
    unpack_model,
)


def pid_and(value):
    return os.getpid(), value


def kill_myself():
    os.kill(os.getpid(), signal.SIGKILL)


class UnpickledError(Exception):
    def __init__(self, first, second):
        super().__init__(first)


def fail(error):
    raise {"plain": KeyError("seven"), "odd": UnpickledError("odd one", 2), "exit": SystemExit(0)}[
        error
    ]


def test_the_answer_comes_from_another_process():
    pid, value = in_fresh_process(pid_and, {"a": 1})
    assert pid != os.getpid()
    assert value == {"a": 1}


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ("plain", KeyError, "seven"),
        ("odd", RuntimeError, "odd one"),
        ("exit", RuntimeError, "SystemExit"),
    ],
)
def test_its_error_is_raised_here(error, kind, words):
    with pytest.raises(kind, match=words):
        in_fresh_process(fail, error)


def test_one_that_is_killed_is_named_with_its_exit_code():
    with pytest.raises(FreshProcessError, match="-9"):
        in_fresh_process(kill_myself)


def test_one_that_hangs_is_ended():
    began = time.monotonic()
    with pytest.raises(FreshProcessError, match="no answer"):
        in_fresh_process(time.sleep, 600, longest_s=1.0)
    assert time.monotonic() - began < 120


def test_a_model_travels_as_it_is():
    model = TinyNet()
    there = unpack_model(pack_model(model))
    x = torch.ones(1, 3, 8, 8)
    torch.testing.assert_close(there.eval()(x), model.eval()(x))


def test_a_model_that_no_pickle_takes_is_built_again_by_its_name_with_its_weights():
    model = build_model("resnet18_cifar", seed=3)
    model.hook = lambda x: x
    packed = pack_model(model)
    assert packed[0] == "resnet18_cifar"
    there = unpack_model(packed).state_dict()
    assert all(torch.equal(there[name], tensor) for name, tensor in model.state_dict().items())


def test_a_model_that_can_do_neither_is_said_to_be():
    with pytest.raises(NotPortableError, match="function"):
        pack_model(lambda x: x)
