"""What would spoil a measurement in silence, in a model or a data loader."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import torch

DISTINCT_INPUTS = 8  # several images, rotated: one image alone may be a special case
LISTENERS: list[Callable[[], None]] = []  # called as each phase begins: the work goes on


def check_clock(asked: str, device: torch.device) -> None:
    """Raise for an unknown clock (ValueError), and for the GPU's without a GPU (RuntimeError)."""
    if asked not in ("auto", "host", "gpu"):
        raise ValueError(f"clock={asked!r}: use 'auto', 'host' or 'gpu'")
    if asked == "gpu" and device.type != "cuda":
        raise RuntimeError(f"clock='gpu' needs a GPU, not '{device}': use clock='auto' or 'host'")


def move_inputs(dataloader: Iterable, device: torch.device) -> list[torch.Tensor]:
    """Move the first `DISTINCT_INPUTS` batches to `device`, once, before any timing.

    ValueError: no list, no batch, no tensor, an empty one, several shapes or types, no such device.
    """
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device='{device}' cannot be timed: use 'cpu' or 'cuda'")
    if isinstance(dataloader, torch.Tensor):
        raise ValueError(f"the inputs are one tensor {(*dataloader.shape,)}: give [*it.split(1)]")
    if isinstance(dataloader, torch.utils.data.Dataset):  # its samples would pass for batches
        raise ValueError("the inputs are a Dataset: give a DataLoader(dataset, batch_size=1)")
    first = islice(dataloader, DISTINCT_INPUTS)
    batches = [batch[0] if isinstance(batch, (tuple, list)) else batch for batch in first]
    tensors = all(isinstance(batch, torch.Tensor) for batch in batches)
    kinds = {((*b.shape,), b.dtype) if tensors else type(b).__name__ for b in batches}
    if not tensors or len(kinds) != 1 or not batches[0].dim() or not batches[0].numel():
        needed = "tensors (N, ...) of one shape and type are needed (a smaller last: drop_last)"
        raise ValueError(f"the data loader yields {kinds or 'nothing'}: {needed}")
    return [batch.to(device) for batch in batches]


def check_output(model: Callable, batch: torch.Tensor, device: torch.device) -> tuple[int, ...]:
    """Return the output's shape; ValueError unless it is a finite tensor on `device`, not empty."""
    with phase(f"check of its output, given {batch.dtype} {(*batch.shape,)}"):
        output = model(batch)
    if not isinstance(output, torch.Tensor):
        kind = type(output).__name__
        raise ValueError(f"the model returned {kind}, not a tensor: wrap it in a module that does")
    if output.device.type != device.type:
        raise ValueError(f"the model's output is on {output.device}, the benchmark on {device}")
    if not output.numel() or not torch.isfinite(output).all():
        found = f"the model's output, {tuple(output.shape)}, is empty or holds NaN or infinity"
        raise ValueError(f"{found}: check its weights and the inputs' normalisation")
    return tuple(output.shape)


def check_repeats(model: Callable, batch: torch.Tensor) -> None:
    """Raise ValueError where the same batch, given twice, gives two answers beyond rounding."""
    first, second = model(batch).clone(), model(batch)
    if first.shape != second.shape:
        return  # the check of its shape says so
    scale, apart = float(first.abs().max()), float((first - second).abs().max())
    if apart > 1e-2 * scale:  # atomic additions round differently each time
        told = f"the model's answers to the same batch, of up to {scale:.3g}, are {apart:.3g} apart"
        why = "it draws at random in eval mode (F.dropout without training=self.training)"
        raise ValueError(f"{told}: {why} or keeps a state; make it repeat")


def check_unchanged(inputs: list[torch.Tensor], originals: list[torch.Tensor]) -> None:
    """Raise ValueError where an input is no longer what it was: the model changed it in place."""
    for index, (batch, original) in enumerate(zip(inputs, originals, strict=True)):
        if not torch.equal(batch.cpu(), original):
            told = f"the model changes its input in place (batch {index})"
            raise ValueError(f"{told}: let it work on a copy (x = x.clone(), inplace=False)")


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Note on what the model raises in which phase it did."""
    for listener in LISTENERS:
        listener()
    try:
        yield
    except SystemExit as error:  # would end the notebook as if all were well
        raise RuntimeError(f"the model ended Python in the {name}: {error!r}") from error
    except Exception as error:
        error.add_note(f"in the {name}")
        raise
