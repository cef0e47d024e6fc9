"""What is held fixed while a latency is measured; everything is restored, whatever happens."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

# Legacy switch and its successors (torch >= 2.9). Reading a legacy flag raises RuntimeError when a
# successor contradicts it, so both are set, and both are put back as they were.
_LEGACY = ((torch.backends.cudnn, "allow_tf32"), (torch.backends.cuda.matmul, "allow_tf32"))
_SUCCESSORS = tuple(
    (owner, "fp32_precision")
    for owner in (
        getattr(torch.backends.cudnn, "conv", None),
        getattr(torch.backends.cudnn, "rnn", None),
        torch.backends.cuda.matmul,
        getattr(torch.backends.mkldnn, "conv", None),
        getattr(torch.backends.mkldnn, "matmul", None),
    )
    if hasattr(owner, "fp32_precision")
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

    @property
    def as_required(self) -> bool:
        """All modules in eval mode, no grad, no TF32, no garbage collection."""
        return self.required_for("fp32")

    def required_for(self, precision: str) -> bool:
        """The same for a precision of `measuring_conditions`: "tf32" requires TF32 instead."""
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
    Works whichever of torch's two APIs the caller used before, and restores both.
    """
    saved = [(owner, name, _read(owner, name)) for owner, name in (*_LEGACY, *_SUCCESSORS)]
    try:
        for owner, name, value in saved:
            if value is not None:
                setattr(owner, name, ("tf32" if allowed else "ieee") if _is_new(name) else allowed)
        yield
    finally:
        for owner, name, value in saved:
            if value is not None:
                setattr(owner, name, value)


def _is_new(name: str) -> bool:
    return name == "fp32_precision"


def _read(owner, name: str):
    try:
        return getattr(owner, name)
    except RuntimeError:  # the caller mixed the two APIs: leave the unreadable one alone
        return None


def tf32_in_force() -> tuple[bool, bool]:
    """Return (convolutions, matmul): may FP32 work run in TF32 on the GPU right now?

    NVIDIA's libraries obey NVIDIA_TF32_OVERRIDE over torch's switches: 0 forbids TF32, and 1 makes
    matrix products use it (convolutions stay as torch says; measured on an H100).
    """
    override = os.environ.get("NVIDIA_TF32_OVERRIDE")
    if override == "0":
        return False, False
    backends = torch.backends
    if not _SUCCESSORS:
        seen = backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32
    else:
        default = backends.fp32_precision
        seen = tuple(
            (default if owner.fp32_precision == "none" else owner.fp32_precision) == "tf32"
            for owner in (backends.cudnn.conv, backends.cuda.matmul)
        )
    return seen[0], seen[1] or override == "1"


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

    Parameters
    ----------
    precision
        "fp32": strict, TF32 forbidden; "tf32": allowed for convolutions and matmul; "default":
        switches left as they are (PyTorch's own default is TF32 for convolutions only).

    Yields
    ------
    ConditionsSeen
        read inside, after everything was applied.
    """
    switches = {"fp32": tf32(False), "tf32": tf32(True), "default": nullcontext()}
    if precision not in switches:
        raise ValueError(
            f"precision={precision!r} is unknown: use 'fp32' (strict), 'tf32' or 'default'"
        )
    with ExitStack() as stack:
        for condition in (switches[precision], eval_mode(model), no_gc()):
            stack.enter_context(condition)
        stack.enter_context(torch.inference_mode())
        convolutions, matmul = tf32_in_force()
        modules = modules_of(model)
        yield ConditionsSeen(
            modules=len(modules),
            modules_in_eval=sum(not m.training for m in modules),
            grad_enabled=torch.is_grad_enabled(),
            inference_mode=torch.is_inference_mode_enabled(),
            tf32_convolutions=convolutions,
            tf32_matmul=matmul,
            gc_enabled=gc.isenabled(),
        )
