"""What is held fixed while a latency is measured; everything is restored, whatever happens."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from helpers.environment.facts import attempt, tf32_in_force

# Reading an older switch raises RuntimeError when its successor (torch >= 2.9) contradicts it, so
# both are set, and both are put back as they were: (owner, name, (not allowed, allowed)).
_CUDNN, _MATMUL, _MKLDNN = torch.backends.cudnn, torch.backends.cuda.matmul, torch.backends.mkldnn
_NEWER = (_CUDNN.conv, _CUDNN.rnn, _MATMUL, _MKLDNN.conv, _MKLDNN.matmul)
_SWITCHES = [(owner, "allow_tf32", (False, True)) for owner in (_CUDNN, _MATMUL)]
_SWITCHES += [(owner, "fp32_precision", ("ieee", "tf32")) for owner in _NEWER]


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
    # A caller who mixed the two APIs has one that cannot be read: that one is left alone.
    before = [attempt(getattr, owner, name) for owner, name, _ in _SWITCHES]
    found = [(*s, value) for s, value in zip(_SWITCHES, before, strict=True) if value is not None]
    try:
        for owner, name, values, _ in found:
            setattr(owner, name, values[allowed])
        yield
    finally:
        for owner, name, _, value in found:
            setattr(owner, name, value)


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
    """Eval mode, inference mode (which includes no_grad), no GC; yields what is in force inside.

    `precision`: "fp32" forbids TF32, "tf32" allows it, "default" leaves the switches as they are
    (PyTorch's own default is TF32 for convolutions only).
    """
    switches = {"fp32": tf32(False), "tf32": tf32(True), "default": nullcontext()}[precision]
    with switches, eval_mode(model), no_gc(), torch.inference_mode():
        training = [module.training for module in modules_of(model)]
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), *tf32_in_force()
        yield ConditionsSeen(len(training), training.count(False), *modes, gc.isenabled())
