"""What is held fixed while a latency is measured; everything is restored, whatever happens."""

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from helpers.environment.facts import tf32_in_force

# Reading an older switch raises RuntimeError when its successor (torch >= 2.9) contradicts it, so
# both are set, and both are put back as they were: (owner, name, not allowed, allowed).
_SWITCHES = (
    (torch.backends.cudnn, "allow_tf32", False, True),
    (torch.backends.cuda.matmul, "allow_tf32", False, True),
    *(
        (owner, "fp32_precision", "ieee", "tf32")
        for owner in (
            getattr(torch.backends.cudnn, "conv", None),
            getattr(torch.backends.cudnn, "rnn", None),
            torch.backends.cuda.matmul,
            getattr(torch.backends.mkldnn, "conv", None),
            getattr(torch.backends.mkldnn, "matmul", None),
        )
        if hasattr(owner, "fp32_precision")
    ),
)


@dataclass(frozen=True)
class ConditionsSeen:
    """What was really in force inside the measurement, read there and not assumed."""

    modules: int  # nn.Module instances of the model
    modules_in_eval: int
    grad_enabled: bool
    inference_mode: bool
    tf32_convolutions: bool
    tf32_matmul: bool
    gc_enabled: bool

    def required_for(self, precision: str) -> bool:
        """All modules in eval mode, no grad, no GC, and TF32 as `precision` has it."""
        switches = {self.tf32_convolutions, self.tf32_matmul}
        return (
            self.modules == self.modules_in_eval
            and not (self.grad_enabled or self.gc_enabled)
            and (precision == "default" or switches == {precision == "tf32"})
        )


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 (and its bf16 cousins on a CPU) in FP32 convolutions and matmuls.

    "FP32" convolutions run in TF32 by default on NVIDIA GPUs: 10 bits of mantissa instead of 23.
    """
    saved = [(owner, name, _read(owner, name)) for owner, name, *_ in _SWITCHES]
    try:
        for (owner, name, *values), (*_, before) in zip(_SWITCHES, saved, strict=True):
            if before is not None:
                setattr(owner, name, values[allowed])
        yield
    finally:
        for owner, name, before in saved:
            if before is not None:
                setattr(owner, name, before)


def _read(owner, name: str):
    try:
        return getattr(owner, name)
    except RuntimeError:  # the caller mixed the two APIs: leave the unreadable one alone
        return None


@contextmanager
def eval_mode(model: Callable) -> Iterator[None]:
    """Put every module of `model` in eval mode; restore each one's own mode afterwards."""
    modes = [(m, m.training) for m in modules_of(model)]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


def modules_of(model: Callable) -> list[nn.Module]:
    """All modules of a model; none for a plain callable."""
    return list(model.modules()) if isinstance(model, nn.Module) else []


@contextmanager
def no_gc() -> Iterator[None]:
    """Collect once, then keep the garbage collector out of the measurement."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def measuring_conditions(model: Callable, precision: str = "fp32") -> Iterator[ConditionsSeen]:
    """Eval mode, inference mode (which includes no_grad), TF32 by `precision`, no GC.

    Yields what is in force inside.

    Parameters
    ----------
    precision
        "fp32": strict, TF32 forbidden; "tf32": allowed for convolutions and matmul; "default":
        switches left as they are (PyTorch's own default is TF32 for convolutions only).
    """
    switches = {"fp32": tf32(False), "tf32": tf32(True), "default": nullcontext()}
    with ExitStack() as stack:
        for condition in (switches[precision], eval_mode(model), no_gc()):
            stack.enter_context(condition)
        stack.enter_context(torch.inference_mode())
        modules = modules_of(model)
        yield ConditionsSeen(
            len(modules),
            sum(not m.training for m in modules),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            *tf32_in_force(),
            gc.isenabled(),
        )
