"""What is held fixed while a latency is measured; everything is restored, whatever happens."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from helpers.environment.facts import attempt, tf32_in_force

_CUDNN, _MKLDNN = torch.backends.cudnn, torch.backends.mkldnn
_SWITCHES = (_CUDNN.conv, _CUDNN.rnn, torch.backends.cuda.matmul, _MKLDNN.conv, _MKLDNN.matmul)


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
        held = self.modules == self.modules_in_eval and not (self.grad_enabled or self.gc_enabled)
        switches = {self.tf32_convolutions, self.tf32_matmul}
        return held and (precision == "default" or switches == {precision == "tf32"})


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 (and its bf16 cousins on a CPU) in FP32 convolutions and matmuls.

    "FP32" convolutions run in TF32 by default on NVIDIA GPUs: 10 bits of mantissa instead of 23.
    torch has two older switches beside the newer ones; reading an older one raises where it
    contradicts its successor, so both kinds are set, and both are put back as they were.
    """
    newer, older = [switch.fp32_precision for switch in _SWITCHES], None
    try:
        _set(["ieee"] * len(newer))  # contradicts the older ones only where they allow TF32
        allows = attempt(getattr, _CUDNN, "allow_tf32") is None
        older = torch.get_float32_matmul_precision(), allows
        kinds = ("tf32", "high") if allowed else ("ieee", "highest")
        _set([kinds[0]] * len(newer), (kinds[1], allowed))
        yield
    finally:
        _set(newer, older)


def _set(newer: list[str], older: tuple[str, bool] | None = None) -> None:
    if older:  # first: this changes some of the newer ones
        matmul, _CUDNN.allow_tf32 = older
        torch.set_float32_matmul_precision(matmul)
    for switch, value in zip(_SWITCHES, newer, strict=True):
        switch.fp32_precision = value


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
    """Collect, then keep the garbage collector out; inside another such block, collect no more."""
    if was_enabled := gc.isenabled():
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

    `precision`: "fp32" forbids TF32, "tf32" allows it, "default" leaves PyTorch's switches alone.
    """
    switches = {"fp32": tf32(False), "tf32": tf32(True), "default": nullcontext()}
    if precision not in switches:
        raise ValueError(f"precision={precision!r}: use one of {', '.join(switches)}")
    with switches[precision], eval_mode(model), no_gc(), torch.inference_mode():
        training = [module.training for module in modules_of(model)]
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), *tf32_in_force()
        yield ConditionsSeen(len(training), training.count(False), *modes, gc.isenabled())
