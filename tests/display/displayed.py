"""Runs of separate processes, tags and a receipt, as the day hands them to display."""

import numpy as np
from fakes import make_run
from nvml_fake import ME

from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.profiling import ForwardProfile
from helpers.environment.readings import Process
from helpers.validation.interference import RunTags, Tag

RECEIPT = CalibrationReceipt((), "")
PROFILE = ForwardProfile(10, 68.0, 1.19, 0, 0, ("sgemm",))
THROTTLE = Tag("throttle", 1.0, 0.05, {"share": 0.2, "reasons": ["power_cap"]})
CPU_LOAD = Tag("cpu_load", 0.7, 0.5, {"share": 0.7, "cpus": 16})


def run(seed=0, host=1.9, gpu=1.3, n=500, outliers=(), **changes):
    """A run around levels in ms; `outliers` replace its first host samples; no GPU clock: None."""
    generator = np.random.default_rng(seed)
    host_ms = host * (1 + 0.01 * generator.gamma(2, 1, n))
    host_ms[: len(outliers)] = outliers
    gpu_ms = None if gpu is None else gpu * (1 + 0.002 * generator.random(n))
    process = Process(4000 + seed, frozenset({ME}), spawned=False, cpus=4)
    return make_run(host_ms, gpu_ms, **({"process": process} | changes))


def tagged(*blocks, unseen=(), idle_foreigners=0, steady_power_cap=False):
    """Tags of a run of five blocks of which the first ones are given."""
    blocks += ((),) * (5 - len(blocks))
    return RunTags(blocks, unseen, idle_foreigners, steady_power_cap)


RUNS = [run(seed) for seed in range(3)]
