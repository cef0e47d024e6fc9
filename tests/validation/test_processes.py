"""Fresh processes: what comes back, and how those that give no answer are told."""

import gc
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch

from helpers.clocks.checks import phase
from helpers.models import build_model
from helpers.validation import processes


def pid_frozen_and(value):
    with phase("work"):
        return os.getpid(), gc.get_freeze_count(), value


class UnpickledError(Exception):
    def __init__(self, first, second):
        super().__init__(first)


ERRORS = {
    "plain": (KeyError("seven"), KeyError, "seven"),
    "not to be pickled": (UnpickledError("odd one", 2), RuntimeError, "odd one"),
    "exit": (SystemExit(0), RuntimeError, "SystemExit"),
}


def fail(case):
    raise ERRORS[case][0]


def test_the_answer_comes_from_another_process_that_collects_little(monkeypatch):
    seen = []
    monkeypatch.setattr(processes, "_answers", lambda p, b, _: seen.append(b) or p.poll(300))
    pid, frozen, value = processes.in_fresh_process(pid_frozen_and, {"a": 1})
    assert seen[0].value == 1  # phase begun there
    assert pid != os.getpid()
    assert frozen > 1000
    assert value == {"a": 1}


@pytest.mark.parametrize("case", ERRORS)
def test_its_error_is_raised_here(case):
    _, kind, words = ERRORS[case]
    with pytest.raises(kind, match=words):
        processes.in_fresh_process(fail, case)


def test_one_that_is_killed_is_named_with_its_exit_code():
    with pytest.raises(processes.FreshProcessError, match="-9"):
        processes.in_fresh_process(signal.raise_signal, signal.SIGKILL)


def test_one_that_hangs_is_ended():
    began = time.monotonic()
    with pytest.raises(processes.FreshProcessError, match="no phase for 1 s"):
        processes.in_fresh_process(time.sleep, 600, longest_s=1.0)
    assert time.monotonic() - began < 120


def test_one_that_starts_too_late_is_ended(monkeypatch):
    monkeypatch.setattr(processes, "_answers", lambda *_: True)  # what comes then is no answer
    with pytest.raises(processes.FreshProcessError, match="no phase for 0 s"):
        processes.in_fresh_process(time.sleep, 600, longest_s=0)


@pytest.mark.parametrize("works", [True, False])
def test_it_is_waited_for_as_long_as_it_begins_phases(works):
    begun, polls = SimpleNamespace(value=0), iter([False] * 9 + [True])

    def poll(longest_s):
        begun.value += works
        return next(polls)

    assert processes._answers(SimpleNamespace(poll=poll), begun, 1.0) == works


@pytest.mark.parametrize(("hook", "name"), [(None, ""), (lambda x: x, "resnet18_cifar")])
def test_a_model_travels_with_its_weights_as_it_is_or_where_no_pickle_takes_it_by_name(hook, name):
    model = build_model("resnet18_cifar", seed=3)
    model.hook = hook
    packed = processes.pack_model(model)
    assert packed[0] == name
    there = processes.unpack_model(packed).state_dict()
    assert all(torch.equal(there[name], tensor) for name, tensor in model.state_dict().items())
