"""A function run in a fresh process, and a model handed to it."""

import copy
import gc
import multiprocessing
import pickle
import signal
from collections.abc import Callable
from multiprocessing import resource_tracker
from typing import Any

import torch
from torch import nn

from helpers.clocks.checks import LISTENERS
from helpers.environment.facts import attempt, first_line
from helpers.models import build_model

# A process that begins no phase (`clocks.checks.phase`) for this long, or twice as long, hangs. A
# run of any length begins one for every block of forwards, so its own duration has no limit.
LONGEST_PHASE_S = 1800.0
HINT = "isolation='none' measures without it"


class FreshProcessError(RuntimeError):
    """A fresh process gave no answer: it died, hangs, or cannot have the GPU."""


class NotPortableError(RuntimeError):
    """A model can neither be handed to another process nor be built there again."""


def in_fresh_process(function: Callable, *args: Any, longest_s: float = LONGEST_PHASE_S) -> Any:
    """Return ``function(*args)`` of a process started for it; both travel by pickle.

    Spawned, never forked: CUDA does not survive a fork. An exception of the function is raised here
    as it is, where it can be pickled. FreshProcessError: the process ended without an answer, began
    no phase within `longest_s`, or another process holds the GPU alone.
    """
    sent, context = pickle.dumps((function, args)), multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    begun = context.RawValue("Q", 0)  # phases; read from time to time, it wakes nobody up
    child = context.Process(target=_answer, args=(theirs, begun))
    resource_tracker.ensure_running()  # started along with the child, it would unblock the signal
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C, sent to all
    try:
        try:
            child.start()  # hears none: it is killed below
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        theirs.close()  # so that its death ends our waiting
        if started := ours.poll(longest_s):  # it reads
            ours.recv_bytes()
            ours.send_bytes(sent)  # apart from its start, in which nobody could kill it
        if not (started and _answers(ours, begun, longest_s)):
            raise FreshProcessError(f"a fresh process began no phase for {longest_s:.0f} s; {HINT}")
        error, found = ours.recv()
        child.join(10)
    except (EOFError, ConnectionError):
        child.join()
        died = f"a fresh process was killed or ran out of memory (code {child.exitcode})"
        raise FreshProcessError(f"{died}; {HINT}") from None
    finally:
        ours.close()
        if child.pid is not None:  # else it never started
            child.kill()
            child.join()
    if error is not None:
        raise error
    return found


def _answers(pipe: Any, begun: Any, longest_s: float) -> bool:
    """Wait for an answer, or for the end of the pipe, as long as phases are begun."""
    before = -1
    while not (ready := pipe.poll(longest_s)) and begun.value != before:
        before = begun.value
    return ready


def _answer(pipe: Any, begun: Any) -> None:
    LISTENERS.append(lambda: setattr(begun, "value", begun.value + 1))
    pipe.send_bytes(b"started")
    try:
        function, args = pickle.loads(pipe.recv_bytes())
        gc.freeze()  # what was imported stays: no collection, one per measurement, visits it
        data = pickle.dumps((None, function(*args)))
    except BaseException as error:  # whatever a user's model raises, SystemExit too
        data = pickle.dumps((_portable(error), None))
    pipe.send_bytes(data)


def _portable(error: BaseException) -> BaseException:
    """The error itself where it survives a pickle, else its first line."""
    if isinstance(error, torch.AcceleratorError) and "busy or unavailable" in str(error):
        told = f"a second process cannot use the GPU ({first_line(error)}): it is in exclusive"
        return FreshProcessError(f"{told} compute mode, see `nvidia-smi -q -d COMPUTE`; {HINT}")
    if isinstance(error, Exception) and attempt(lambda: pickle.loads(pickle.dumps(error))):
        return error
    return RuntimeError(first_line(error))  # SystemExit would end the notebook as if all were well


def pack_model(model: nn.Module) -> tuple[str, bytes]:
    """A model on the CPU in a form that `unpack_model` reads in another process.

    Its pickle, or the name that `build_model` knows it by with its weights, else NotPortableError.
    """
    try:
        return "", pickle.dumps(copy.deepcopy(model).cpu())
    except Exception as error:  # pickle, deepcopy and a model's own hooks fail in many ways
        origin = getattr(model, "built_from", None)
        if origin is None or origin.weights:
            raise NotPortableError(f"{type(model).__name__}: {first_line(error)}") from error
        weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
        return origin.architecture, pickle.dumps(weights)


def unpack_model(packed: tuple[str, bytes]) -> nn.Module:
    """The model of `pack_model`, whose bytes never left these two processes."""
    name, found = packed[0], pickle.loads(packed[1])
    if not name:
        return found
    model = build_model(name)
    model.load_state_dict(found)
    return model
