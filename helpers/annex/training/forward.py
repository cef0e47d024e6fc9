"""The network as a training step calls it: FP16 and two CUDA graphs on a GPU, plain on a CPU."""

import copy
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from helpers.environment.compile import quiet
from helpers.environment.facts import first_line


@contextmanager
def forward_of(network: nn.Module, example: torch.Tensor) -> Iterator[tuple[Callable, str]]:
    """Yield (forward, how): forward gives FP32 scores with a gradient, `how` names what it runs.

    On a GPU eager steps of a small network wait for Python: there forward and backward are captured
    as CUDA graphs, for batches like `example`; where that does not work, or not with this network,
    it runs eagerly. What a captured forward decides in Python it has decided for all steps. The
    state_dict is left as it was. FP16 gradients want a GradScaler.
    """
    device = example.device
    if device.type != "cuda":  # a CPU trains in FP32, as it is sure to
        yield lambda images: network(images).float(), "fp32"
        return
    half = _Half(network)
    # A capture that fails midway would leave its own stream the current one.
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
        problem = _capture(half, example)
    try:
        with warnings.catch_warnings():  # the captured backward was another stream's, on purpose
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match")
            yield half, f"fp16 autocast, {problem or 'CUDA graphs'}"
    finally:
        torch._C._cuda_clearCublasWorkspaces()  # those of the capture's stream


class _Half(nn.Module):
    """The network under autocast, without its cache of casts, which a CUDA graph cannot refill.

    In FP16, unlike BF16, PyTorch takes cuDNN's batch-norms, which are the faster ones.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", torch.float16, cache_enabled=False):
            return self.network(images).float()


def _capture(half: nn.Module, example: torch.Tensor) -> str:
    """Capture forward and backward, without a trace in the network; says why, if they cannot be."""
    before, mode = copy.deepcopy(half.state_dict()), torch.cuda.get_sync_debug_mode()
    weights = [weight for weight in half.parameters() if weight.requires_grad]
    with quiet():
        try:
            # Tried before the capture: where that fails midway, torch does not undo it whole.
            torch.cuda.set_sync_debug_mode("error")
            drawn = random.getstate(), torch.get_rng_state().tolist()
            torch.autograd.grad(half(example).sum(), weights, allow_unused=True)
            if drawn != (random.getstate(), torch.get_rng_state().tolist()):
                raise RuntimeError("its forward draws random numbers on the CPU")
            torch.cuda.set_sync_debug_mode(mode)
            torch.cuda.make_graphed_callables(half, (example,), allow_unused_input=True)
            return ""
        except Exception as error:  # whatever a model may do that a capture forbids
            return f"no CUDA graph: {first_line(error)}"
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            half.load_state_dict(before)  # batch-norms have averaged over the example
