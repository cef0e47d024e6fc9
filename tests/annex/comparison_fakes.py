"""A comparison as `annex.measure` would return it, from levels that the test chooses."""

from types import SimpleNamespace

import numpy as np
from fakes import make_run

from helpers.annex.comparison import CONTROL, REFERENCE, Contribution, Measured

# GPU and host latency (ms) by entry; the host's clock is the noisier one.
LEVELS = {
    REFERENCE: (1.30, 2.30),
    CONTROL: (1.30, 2.30),
    "fused": (1.30, 2.10),
    "fp16": (0.60, 2.40),
    "compile": (0.15, 0.20),
}
ACCURACIES = {
    name: SimpleNamespace(fraction=value, low=value - 0.004, high=value + 0.004)
    for name, value in {"fp32": 0.945, "fused": 0.945, "fp16": 0.944, "compile": 0.9446}.items()
}


def make_measured(levels=None, processes=6, gpu=True, sds=None, seed=0, **changes):
    """A `Measured` whose entries have these (GPU, host) levels, in ms.

    `sds`: relative standard deviation over the processes by entry, else 0.5 %.
    """
    levels, random, given = levels or LEVELS, np.random.default_rng(seed), []
    for _ in range(processes):
        runs = {}
        for name, (gpu_ms, host_ms) in levels.items():
            sd = (sds or {}).get(name, 0.005) * (name not in (REFERENCE, CONTROL))
            level = np.exp(sd * random.standard_normal())
            noise = np.exp([[0.0003], [0.01]] * random.standard_normal((2, 100)))
            samples = host_ms * level * noise[1], gpu_ms * level * noise[0] if gpu else None
            runs[name] = make_run(*samples, block=4)
        given.append(Contribution(runs))
    return Measured(given, **changes)


def without_gpu_clock(measured, name, but=0):
    """The same, but that no process could read this entry's GPU clock, the first few excepted."""
    for given in measured.processes[but:]:
        given.runs[name] = make_run(given.runs[name].host.samples_ms, block=4)
    return measured
