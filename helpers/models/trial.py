"""One forward before anything else: what cannot be measured is told at once, with a remedy."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import torch
from torch import nn

from helpers.clocks.conditions import eval_mode
from helpers.models.seeding import own_random_state

OTHER_SIZES = (64, 96, 224, 299, 384)  # tried where the images' own size does not do


class ModelNameError(ValueError):
    """No model can be built or used from this name, function or file; the message says why."""


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Name the user's code that raised; a sys.exit() in it would end the notebook as if all well.

    Raises
    ------
    ModelNameError
        For whatever it raised but KeyboardInterrupt, which is the reader's.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ModelNameError(
            f"{what} raised {type(error).__name__}: {error or 'no message'}"
        ) from error


def try_forward(network: nn.Module, shape: tuple[int, ...], device, training: bool = False) -> int:
    """Run `network`, moved to `device`, on one random batch; returns how many classes it tells.

    Parameters
    ----------
    shape : of the batch, (N, 3, H, W).
    training : run it as a step of a training does; it moves batch-norms, so pass a copy.

    Raises
    ------
    ModelNameError
        It raised, or its output is no tensor of logits (N, classes); the message says what helps.
    """
    mode = "in training mode" if training else "in eval mode"
    where = f"the model, tried on images {tuple(shape)} {mode},"
    try:
        with users_code(where):
            logits = _forward(network, shape, device, training)
    except ModelNameError as error:
        raise ModelNameError(f"{error}{_remedy(network, shape, device, training)}") from error
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != shape[0]:
        got = tuple(getattr(logits, "shape", ())) or type(logits).__name__
        raise ModelNameError(
            f"{where} returned {got}, not logits (N, classes): measure a Module whose forward "
            "returns the logits (`return self.model(x).logits`, or `[0]`, or what they are called)"
        )
    return logits.shape[1]


def _forward(network: nn.Module, shape, device, training: bool):
    with own_random_state(), torch.set_grad_enabled(training), ExitStack() as stack:
        network.to(device)
        if training:
            network.train()
        else:
            stack.enter_context(eval_mode(network))  # .eval() is refused by exported modules
        return network(torch.rand(shape, device=device))


def _remedy(network: nn.Module, shape, device, training: bool) -> str:
    types = {p.dtype for p in network.parameters() if p.is_floating_point()} - {torch.float32}
    if types:
        return (
            f". Its weights are {types.pop()}, the images float32: call .float() on it; other "
            "precisions are variants (fp16, bf16)"
        )
    for size in OTHER_SIZES:
        with suppress(Exception, SystemExit):
            _forward(network, (*shape[:2], size, size), device, training)
            return (
                f". It takes {size}x{size} images, these are {shape[2]}x{shape[3]}: resize inside "
                f"(nn.Sequential(nn.Upsample(size={size}), model)), or use a model for small images"
            )
    return ""
