"""A user's model: ModelNameError, no way out of its code, its seeds, and one forward on trial."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from helpers.clocks.conditions import eval_mode


class ModelNameError(ValueError):
    """No model can be built or used from this name, function or file; the message says why."""


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Raise ModelNameError for a sys.exit(): it would end the notebook as if all were well."""
    try:
        yield
    except SystemExit as error:
        raise ModelNameError(f"{what} raised SystemExit: {error}") from error


def _gpus() -> range:
    return range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)


def own_random_state() -> AbstractContextManager:
    """Give the CPU's generator, and those of GPUs in use, back as they are now."""
    return torch.random.fork_rng(_gpus())


def seed_generators(seed: int) -> None:
    """Seed the generators that `own_random_state` gives back: no GPU that is not in use yet."""
    torch.default_generator.manual_seed(seed)
    if _gpus():
        torch.cuda.manual_seed_all(seed)


def try_forward(
    network: nn.Module, batch: torch.Tensor, device, training: bool = False, scored: bool = True
) -> int:
    """Run `network`, moved to `device`, on one batch (N, …); returns its classes.

    `training` moves batch-norms: pass a copy. What the model raises gets a note; an output that is
    no tensor (N, …), or is to be `scored` and not (N, classes), raises ModelNameError.
    """
    named = getattr(getattr(network, "built_from", None), "architecture", "the model")
    what = f"{named}{' in training mode' * training}, tried on {batch.dtype} {(*batch.shape,)}"
    network.to(device)
    mode = nullcontext(network.train()) if training else eval_mode(network)  # exported: no .eval()
    try:
        with own_random_state(), torch.set_grad_enabled(training), mode, users_code("the model"):
            output = network(batch.to(device))
    except Exception as error:
        other = "change" if hasattr(network, "example_inputs") else "-p input_shape 3x224x224 or"
        hint = f"if the shape is not what it takes: {other} its example_inputs"
        error.add_note(f"{what}: {hint}; else look in its forward, above")
        raise
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else ()
    if shape[:1] != batch.shape[:1] or (scored and len(shape) != 2):
        told = f"{what}, returned {shape or type(output).__name__}: wrap it to return one tensor, "
        raise ModelNameError(told + ("logits (N, classes)" if scored else "N first"))
    return shape[-1]
