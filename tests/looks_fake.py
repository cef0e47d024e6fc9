"""Invented looks at a GPU and a host, clean unless changed."""

import numpy as np
from nvml_fake import ME

from helpers.environment.readings import GpuReading, HostReading, Look, Process

CLEAN_GPU = GpuReading(
    processes=frozenset({ME}),
    shares=((ME, 70),),
    sm_mhz=1980,
    memory_mhz=2619,
    reasons=0,
    power_limited_s=3.0,
    thermal_limited_s=0.0,
)
PROCESS = Process(ME, frozenset({ME}), spawned=False, cpus=4)


def host_at(at_s, **changes):
    """A host on which this thread has computed alone, on one of four CPUs, since 0."""
    counters = {
        "at_s": at_s,
        "busy_s": at_s,
        "core": 1,
        "steal_s": dict.fromkeys(range(4), 0.0),
        "own_s": at_s,
        "thread_s": at_s,
        "preemptions": 0,
    }
    return HostReading(**(counters | changes))


def look(at_s, gpu=CLEAN_GPU, **host):
    return Look(gpu, host_at(at_s, **host), {})


def clean_samples(n=100, seed=0):
    return 1.300 + 0.003 * np.random.default_rng(seed).standard_normal(n)
