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


def try_forward(network: nn.Module, shape: tuple[int, ...], device, training: bool = False) -> int:
    """Run `network`, moved to `device`, on one random batch (N, 3, H, W); returns its classes.

    `training` moves batch-norms: pass a copy. What the model raises gets a note; an output that is
    no tensor of logits (N, classes) raises ModelNameError.
    """
    what = f"the model, tried on images {shape}{' in training mode' if training else ''}"
    network.to(device)
    if training:
        network.train()
    mode = nullcontext() if training else eval_mode(network)  # .eval() fails on exported modules
    try:
        with own_random_state(), torch.set_grad_enabled(training), mode, users_code("the model"):
            logits = network(torch.rand(shape, device=device))
    except Exception as error:
        error.add_note(what)
        raise
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != shape[0]:
        got = tuple(getattr(logits, "shape", ())) or type(logits).__name__
        raise ModelNameError(f"{what}, returned {got}: wrap it to return logits (N, classes)")
    return logits.shape[1]
