"""How a network is executed: compiled by Inductor, or replayed as one captured CUDA graph."""

import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import nn

from helpers.environment.compile import quiet

WARMUP_CALLS = 3


class Compiled(nn.Module):
    """A network compiled by torch.compile for one shape, without graph breaks."""

    def __init__(self, network: nn.Module, example: torch.Tensor, *, freeze: bool = False, **how):
        # Imported here: they take seconds, and only compiled variants need them.
        from torch._dynamo.eval_frame import reset_code
        from torch._inductor import config

        super().__init__()
        self.network = network
        function = own_code(lambda x: network(x))
        self._run = torch.compile(function, fullgraph=True, dynamic=False, **how)
        # torch would keep the compiled code, and frozen weights with it, for the process's life.
        weakref.finalize(self, reset_code, function.__code__).atexit = False
        # Freezing is read at the first call, by two of torch's layers: not one of `options`.
        with quiet(), generated_code_released(), config.patch(freezing=freeze):
            for _ in range(WARMUP_CALLS):  # the second and third may record torch's own graphs
                self._run(example)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._run(x)  # without nn.Module's hooks in between


@contextmanager
def generated_code_released() -> Iterator[None]:
    """Let what Inductor generates inside, and frozen weights, live no longer than its callers."""
    from torch._inductor.codecache import PyCodeCache

    before = len(PyCodeCache.modules)
    try:
        yield
    finally:
        for module in PyCodeCache.modules[before:]:
            sys.modules.pop(module.__name__, None)
        del PyCodeCache.modules[before:]


def own_code(function: Callable) -> Callable:
    """Give `function` a code object that no other function has, not even its own copies.

    torch keeps compiled functions with the code object, and silently gives up after eight of them.
    """
    function.__code__ = function.__code__.replace(co_name="forward")
    return function


class Captured(nn.Module):
    """A network captured once as a CUDA graph; a call copies its image in and replays it.

    The copy into the graph's own input buffer, of `example`'s type and layout, also casts. With
    `tuned` cuDNN times its algorithms instead of guessing. The logits returned are the graph's own
    buffer, which the next call overwrites.
    """

    def __init__(self, network: nn.Module, example: torch.Tensor, *, tuned: bool = False):
        super().__init__()
        self.network = network  # the graph reads the weights where they are: they must live on
        with torch.inference_mode(False):  # else nobody could write to it outside inference mode
            buffer = example.clone()
        # cuDNN's choices are remembered per thread: in a thread of its own a capture neither takes
        # over another variant's nor leaves its own behind. The thread lives as long as the graph,
        # for kernels that cuDNN generated belong to its remembered plans.
        thread = ThreadPoolExecutor(1, thread_name_prefix="capture")
        weakref.finalize(self, thread.shutdown).atexit = False
        self._graph, self._logits = thread.submit(_capture, network, buffer, tuned).result()
        self._buffer, self._shape = buffer, example.shape
        self._copy, self._replay = buffer.copy_, self._graph.replay

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape != self._shape:  # copy_ would broadcast
            raise ValueError(f"captured for batches {tuple(self._shape)}, not {tuple(x.shape)}")
        self._copy(x)
        self._replay()
        return self._logits


def _capture(network: Callable, buffer: torch.Tensor, tuned: bool):
    """Warm up and capture, in the calling thread; returns (graph, FP32 logits' buffer)."""
    cudnn, graph = torch.backends.cudnn, torch.cuda.CUDAGraph()
    was_tuned, cudnn.benchmark = cudnn.benchmark, tuned
    try:
        with torch.cuda.device(buffer.device), torch.inference_mode():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARMUP_CALLS):
                    network(buffer).float()
            torch.cuda.synchronize()
            # cuBLAS keeps a workspace per thread and stream until anybody clears them all, as
            # Inductor does for graphs of its own: this graph would then read freed memory.
            # Cleared before and after, it is allocated during the capture, in the graph's pool.
            torch._C._cuda_clearCublasWorkspaces()
            with torch.cuda.graph(graph, stream=stream):
                logits = network(buffer).float()
            torch.cuda.synchronize()
            torch._C._cuda_clearCublasWorkspaces()
    finally:
        cudnn.benchmark = was_tuned
    return graph, logits
