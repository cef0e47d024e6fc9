"""What can be wrong with a model or a data loader, said before or where it spoils a measurement."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from numbers import Integral

import torch

from helpers.clocks import ForwardError
from helpers.clocks.conditions import modules_of

DISTINCT_INPUTS = 8  # several images, rotated: one image alone may be a special case


# CUDA's words for a device that failed by itself, in lower case.
GPU_FAILURES = ("uncorrectable ecc", "gpu is lost", "fallen off the bus", "device unavailable")


class ModelError(RuntimeError):
    """The model raised while it was measured; its own error is the cause."""


def check_count(name: str, value: int) -> None:
    """Refuse what is no whole number of iterations, at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"{name}={value!r} ({type(value).__name__}): an integer of at least 1 is needed"
        )


def device_of(model: Callable) -> torch.device:
    """Where the model's first parameter is; the CPU for what has none."""
    parameter = next((p for m in modules_of(model) for p in m.parameters()), None)
    return parameter.device if parameter is not None else torch.device("cpu")


def check_device(model: Callable, device: torch.device) -> None:
    """Refuse a device that has no clock here, and a model that is, even in part, elsewhere."""
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device='{device}' cannot be timed: use 'cpu' or 'cuda'")
    tensors = (t for m in modules_of(model) for t in (*m.parameters(), *m.buffers()))
    for home in dict.fromkeys(tensor.device for tensor in tensors):
        if home.type != device.type or device.index not in (None, home.index):
            raise ValueError(
                f"the model, or a part of it, is on {home}, the benchmark and its inputs on "
                f"{device}: move the model with .to('{device}')"
            )


def move_inputs(dataloader: Iterable, device: torch.device) -> list[torch.Tensor]:
    """Move the first `DISTINCT_INPUTS` batches to `device`, once, before any timing.

    Raises
    ------
    ValueError
        No batch, an empty batch, something that is no finite floating-point tensor (N, ...),
        unequal shapes or types, or the loader itself raised.
    """
    batches = []
    try:
        for batch in islice(dataloader, DISTINCT_INPUTS):
            batches.append(batch[0] if isinstance(batch, (tuple, list)) and batch else batch)
    except Exception as error:
        raise ValueError(
            f"the data loader ({type(dataloader).__name__}) raised {type(error).__name__} when "
            f"asked for batch {len(batches)}: {error}; iterate over it alone, it must yield "
            "inputs (N, ...) or (inputs, labels)"
        ) from error
    if not batches:
        raise ValueError("the data loader yields no batch: give it at least one image")
    for index, batch in enumerate(batches):
        _check_batch(f"batch {index} of the data loader", batch, batches[0])
    return [batch.to(device) for batch in batches]


def _check_batch(name: str, batch, first) -> None:
    if not isinstance(batch, torch.Tensor) or not batch.is_floating_point():
        kind = getattr(batch, "dtype", type(batch).__name__)
        raise ValueError(
            f"{name} is {kind}, not a floating-point tensor: apply the test transform, which "
            "scales and normalises"
        )
    if batch.shape != first.shape or not batch.numel() or not batch.dim():
        raise ValueError(
            f"{name} has shape {tuple(batch.shape)}, batch 0 {tuple(first.shape)}: latencies need "
            "batches (N, ...) of one size, N >= 1 (drop_last=True)"
        )
    if batch.dtype != first.dtype:
        raise ValueError(f"{name} is {batch.dtype}, batch 0 {first.dtype}: use one type for all")
    if not torch.isfinite(batch).all():
        raise ValueError(f"{name} holds NaN or infinity: mend the data")


def check_output(model: Callable, batch: torch.Tensor, device: torch.device) -> tuple[int, ...]:
    """Return the shape of what the model makes of a batch, if that can be timed.

    Raises
    ------
    ValueError
        It is no tensor, empty, on another device, or not finite.
    ModelError
        The model raised.
    """
    with phase("check of its output"):
        try:
            output = model(batch)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise ForwardError(0, error) from error
    if not isinstance(output, torch.Tensor):
        raise ValueError(
            f"the model returned {type(output).__name__}, not a tensor of logits: wrap it in a "
            "function that returns the tensor to be timed"
        )
    if output.device.type != device.type:
        raise ValueError(
            f"the model's output is on {output.device}, the benchmark on {device}: "
            f"move the model with .to('{device}')"
        )
    if not output.numel():
        raise ValueError(
            f"the model's output is empty, of shape {tuple(output.shape)}: it computes nothing "
            "that could be timed"
        )
    if not torch.isfinite(output).all():
        raise ValueError(
            "the model's output holds NaN or infinity, its latency means nothing: check its "
            "weights and the inputs' normalisation"
        )
    return tuple(output.shape)


def check_repeats(model: Callable, batch: torch.Tensor) -> None:
    """Raise ValueError where the same batch, given twice, gives two answers beyond rounding.

    Such a model is not in eval mode whatever its modules say: `F.dropout(x, 0.5)` without
    `training=self.training`, noise, a counter. What it computes, and how long, is another thing
    each time. Atomic additions round differently each time, hence a tolerance.
    """
    first, second = model(batch).clone(), model(batch)
    if first.shape != second.shape:
        return  # the check of its shape says so
    scale = float(first.abs().max())
    apart = float((first - second).abs().max())
    if apart > 1e-2 * scale:
        raise ValueError(
            f"the model gives two answers to the same batch, {apart:.3g} apart where its largest "
            f"output is {scale:.3g}: it draws at random although it is in eval mode "
            "(F.dropout without training=self.training, noise) or keeps a state; make it repeat"
        )


def check_unchanged(inputs: list[torch.Tensor], originals: list[torch.Tensor]) -> None:
    """Raise ValueError where an input is no longer what it was: the model changed it in place."""
    for index, (batch, original) in enumerate(zip(inputs, originals, strict=True)):
        if not torch.equal(batch.cpu(), original):
            raise ValueError(
                f"the model changes its input in place (batch {index}), so that each forward sees "
                "other values than the last: let it work on a copy (x = x.clone(), inplace=False)"
            )


@contextmanager
def phase(name: str, done: int = 0) -> Iterator[None]:
    """Say in which phase and iteration, counted from 1, the model raised, and what helps."""
    try:
        yield
    except ForwardError as error:
        cause = error.__cause__
        remedy = "run the model alone on one batch of this data loader"
        if isinstance(cause, torch.OutOfMemoryError):
            remedy = "use a smaller batch_size, or free the GPU's memory"
        who = "the model"
        if any(sign in str(cause).lower() for sign in GPU_FAILURES):
            who, remedy = "the GPU, not the model,", "see nvidia-smi and dmesg; restart the kernel"
        raise ModelError(
            f"{who} raised {type(cause).__name__} in iteration {done + error.index + 1} of "
            f"the {name}: {cause}; {remedy}"
        ) from cause
