"""The model as a CUDA graph beside eager: what launching its kernels one by one costs."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class GraphReading:
    """GPU clock of the graph's replays (n,) in ms, and the kernels it launches; else why not."""

    samples_ms: np.ndarray | None
    launches: float | None
    why: str = ""


def graph_latencies(model, inputs, clock, count: int = 100) -> GraphReading:
    return GraphReading(None, None, "not built yet")
