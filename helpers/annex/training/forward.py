"""The network as a training step calls it: bfloat16 and compiled on a GPU, plain on a CPU."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from helpers.annex.variants.graph import WARMUP_CALLS, generated_code_released, own_code
from helpers.environment.compile import check_compile_once, quiet
from helpers.environment.facts import first_line


@contextmanager
def forward_of(network: nn.Module, example: torch.Tensor) -> Iterator[tuple[Callable, str]]:
    """Yield (forward, how): forward gives FP32 scores with a gradient, `how` names what it runs.

    On a GPU eager steps of a small network wait for Python: there `torch.compile` replays forward
    and backward as CUDA graphs, for batches like `example`; where it does not work, or not with
    this network, the network runs eagerly. Its state_dict is left as it was.
    """
    device = example.device
    # In bfloat16 where the GPU computes in it itself; a CPU trains in FP32, as it is sure to.
    half = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)

    def forward(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            return network(images).float()

    how = "bf16 autocast" if half else "fp32"
    if device.type != "cuda":
        yield forward, how
        return
    from torch._dynamo.eval_frame import reset_code  # imports of seconds, as in variants.graph

    problem, function = check_compile_once(device).reason, own_code(forward)
    compiled = torch.compile(function, mode="reduce-overhead", fullgraph=True, dynamic=False)
    try:
        if problem := problem or _warm(compiled, network, example):
            yield forward, f"{how}, without torch.compile : {problem}"
        else:
            yield compiled, f"{how}, torch.compile"
    finally:
        reset_code(function.__code__)  # else torch keeps the compiled code


def _warm(compiled: Callable, network: nn.Module, example: torch.Tensor) -> str:
    """Compile and record, without a trace in the network; says why, if it cannot be compiled."""
    from torch._dynamo.exc import TorchDynamoException

    before = copy.deepcopy(network.state_dict())
    try:
        with quiet(), generated_code_released():
            for _ in range(WARMUP_CALLS):  # compile, record the CUDA graphs, replay them
                network.zero_grad()  # gradients lie in the graphs' memory: none is added to
                compiled(example).sum().backward()
        return ""
    except TorchDynamoException as error:
        return first_line(error)
    finally:
        network.load_state_dict(before)  # batch-norms have averaged over the example
        network.zero_grad()
