"""What runs a user's code: with random numbers of its own, no way out, and one forward first."""

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
    what = f"the model{' in training mode' * training}, tried on {batch.dtype} {(*batch.shape,)}"
    network.to(device)
    if training:
        network.train()
    mode = nullcontext() if training else eval_mode(network)  # .eval() fails on exported modules
    try:
        with own_random_state(), torch.set_grad_enabled(training), mode, users_code("the model"):
            output = network(batch.to(device))
    except Exception as error:
        error.add_note(f"{what}: give it others by -p input_shape 3x224x224 or its example_inputs")
        raise
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else ()
    if shape[:1] != batch.shape[:1] or (scored and len(shape) != 2):
        told = f"{what}, returned {shape or type(output).__name__}: wrap it to return one tensor, "
        raise ModelNameError(told + ("logits (N, classes)" if scored else "N first"))
    return shape[-1]
