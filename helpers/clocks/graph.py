"""The model as a captured CUDA graph beside the eager one: what launching its kernels costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from helpers.clocks.profiling import count_kernels
from helpers.clocks.timing import GpuClock
from helpers.environment.facts import first_line


@dataclass(frozen=True)
class GraphReading:
    """GPU latencies (n,) of the model's replayed graph in ms; None: `why` says what hindered it.

    `launches`: kernels that one eager forward launches; None: not observable.
    """

    samples_ms: np.ndarray | None
    launches: float | None
    why: str


def graph_latencies(
    model: Callable, inputs: Sequence[torch.Tensor], clock: GpuClock, count: int = 100
) -> GraphReading:
    """Capture `model` on its first input and read `count` replays, under the conditions in force.

    A model that cannot be captured, because it waits inside for example, is no error.
    """
    adapted, samples, why = (clock.batch, clock.timeout_ms), None, ""
    try:
        graph = _capture(model, inputs[0].clone(), clock.device)
        clock.adapt(lambda _: graph.replay(), inputs)
        samples = clock.measure(lambda _: graph.replay(), inputs, count).samples_ms
    except Exception as error:
        why = first_line(error)
    clock.batch, clock.timeout_ms = adapted
    return GraphReading(samples, count_kernels(model, inputs[0], clock.device), why)


def _capture(model: Callable, image: torch.Tensor, device: torch.device) -> torch.cuda.CUDAGraph:
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    # The outer stream context leaves the side stream even where ending a failed capture raises.
    with torch.cuda.device(device), torch.cuda.stream(stream):
        stream.wait_stream(torch.cuda.default_stream(device))
        for _ in range(3):  # as torch's documentation has it: libraries start before the capture
            model(image)
        # cuBLAS keeps a workspace per stream: cleared before and after, it belongs to the graph.
        torch._C._cuda_clearCublasWorkspaces()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            model(image)
        torch._C._cuda_clearCublasWorkspaces()
    return graph
