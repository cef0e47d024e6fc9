"""Invented looks at a GPU and a host, clean unless changed."""

import numpy as np
from nvml_fake import ME

from helpers.environment.readings import (
    GpuReading,
    HostReading,
    Snapshot,
)
from helpers.validation.interference.evidence import (
    Evidence,
    Levels,
    apply_rules,
)
from helpers.validation.interference.rules import GPU_RULES, HOST_RULES

RULES = GPU_RULES | HOST_RULES
CLEAN_GPU = GpuReading(
    processes=frozenset({ME}),
    shares=((ME, 70),),
    sm_mhz=1980,
    memory_mhz=2619,
    reasons=0,
    power_limited_s=3.0,
    thermal_limited_s=0.0,
    temperature_c=55,
    power_w=180.0,
)


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


def snapshot(at_s, gpu=CLEAN_GPU, **host):
    return Snapshot(at_s, at_s + 0.005, gpu, host_at(at_s, **host), {})


def clean_samples(n=100, seed=0):
    return 1.300 + 0.003 * np.random.default_rng(seed).standard_normal(n)


def block(gpu=CLEAN_GPU, before_gpu=CLEAN_GPU, host=None, **evidence):
    """A block of one second, clean unless changed."""
    context = {
        "own": frozenset({ME}),
        "listed": (gpu and gpu.processes) or frozenset(),
        "cpus": 4,
        "gpu_ms": clean_samples(),
        "levels": Levels(1980, 2619, 1.300),
    }
    after = snapshot(1.0, gpu, **(host or {}))
    return Evidence(snapshot(0.0, before_gpu), after, **(context | evidence))


def codes(evidence):
    return {tag.code for tag in apply_rules(evidence, RULES)[1]}
