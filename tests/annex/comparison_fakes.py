"""A comparison as `measure_interleaved` would return it, from levels that the test chooses."""

from types import SimpleNamespace

import numpy as np
from fakes import make_result

from helpers.annex.comparison import Interleaved, control_of

REFERENCE = "fp32"
COPIES = COPY, *_ = ("fp32 (copie 1)", "fp32 (copie 2)", "fp32 (copie 3)")
# GPU and host latency (ms) by entry; the host's clock is the noisier one.
LEVELS = {
    REFERENCE: (1.30, 2.30),
    control_of(REFERENCE): (1.30, 2.30),
    **dict(zip(COPIES, ((1.313, 2.30), (1.304, 2.30), (1.297, 2.30)), strict=True)),
    "fused": (1.306, 2.10),
    "fp16": (0.60, 2.40),
    "compile": (0.15, 0.20),
}
ACCURACIES = {
    name: SimpleNamespace(fraction=value, low=value - 0.004, high=value + 0.004)
    for name, value in {"fp32": 0.945, "fused": 0.945, "fp16": 0.944, "compile": 0.9446}.items()
}


def make_interleaved(levels=None, runs=3, samples=200, gpu=True, seed=0, **changes):
    """An `Interleaved` whose entries have these (GPU, host) levels, in ms."""
    levels, random = levels or LEVELS, np.random.default_rng(seed)

    def result(gpu_ms, host_ms):
        host = host_ms * np.exp(0.02 * random.standard_normal(samples))
        return make_result(
            host, gpu_ms * np.exp(0.002 * random.standard_normal(samples)) if gpu else None
        )

    measured = {name: tuple(result(*level) for _ in range(runs)) for name, level in levels.items()}
    fields = {
        "runs": measured,
        "reference": REFERENCE,
        "control": control_of(REFERENCE),
        "copies": tuple(name for name in COPIES if name in levels),
        "block": samples // 50,
        "orders": (tuple(levels),) * (50 * runs),
        "observed": ((),) * runs,
        "failed": {},
    }
    return Interleaved(**{**fields, **changes})
