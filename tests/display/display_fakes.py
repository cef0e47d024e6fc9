"""Runs, tags and verdicts around given samples, for what is displayed of them."""

import numpy as np

from helpers.bench_latency import NO_GPU, Run
from helpers.clocks.conditions import ConditionsSeen
from helpers.clocks.warmup import Warmup
from helpers.environment.readings import Process
from helpers.stats import spread, summarise
from helpers.validation import ClockVerdict, Verdict
from helpers.validation.interference import RunTags, Tag

AS_REQUIRED = ConditionsSeen(3, 3, False, True, False, False, False)
CLEAN = RunTags(blocks=((),) * 5, idle_foreigners=0, steady_power_cap=False, unseen=())


def run(host=1.9, gpu=1.3, n=500, seed=0, outliers=(), **changes) -> Run:
    """A run around levels in ms, or around given samples; `gpu=None`: it has no such clock."""
    generator = np.random.default_rng(seed)
    series = {}
    for clock, level, noise in (("host", host, 0.01), ("gpu", gpu, 0.002)):
        if isinstance(level, float):
            level = level * (1 + noise * generator.gamma(2, 1, n))
        series[clock] = level if level is None else np.array(level)
    series["host"][: len(outliers)] = outliers
    fields = {
        "host": summarise(series["host"]),
        "gpu": None if gpu is None else summarise(series["gpu"]),
        "no_gpu_clock": NO_GPU if gpu is None else "",
        "no_gpu_clock_why": "no CUDA GPU" if gpu is None else "",
        "rejected_gpu_ms": np.zeros(0),
        "retried_batches": 0,
        "warmup": Warmup(np.concatenate(([900.0, 12.0], np.full(48, 2.0))), True),
        "conditions": AS_REQUIRED,
        "looks": (),
        "process": Process(4000 + seed, frozenset({4000 + seed}), True, 4),
        "precision": "fp32",
        "input_shape": (1, 3, 32, 32),
        "device": "cpu" if gpu is None else "cuda:0",
    }
    return Run(**(fields | changes))


def tagged(*blocks: tuple[Tag, ...], **changes) -> RunTags:
    fields = {"idle_foreigners": 0, "steady_power_cap": False, "unseen": ()}
    return RunTags(blocks=tuple(blocks), **(fields | changes))


def verdict(runs, deciding="gpu", limit=0.10, causes=(), further=(1.30, 1.34), doubt="", seen=None):
    """A verdict on given runs; the causes are those of every clock that misses the criterion."""
    clocks = {}
    for clock in ("gpu", "host"):
        found = [getattr(run, clock) for run in runs]
        if None not in found:
            p95, means = (tuple(getattr(s, name) for s in found) for name in ("p95", "mean"))
            met = spread(p95) < limit
            told = () if met else tuple(causes)
            figures = (p95, means, spread(p95), spread(means), met, told, further)
            clocks[clock] = ClockVerdict(clock, *figures)
    decides = deciding if deciding in clocks else "host"
    return Verdict(tuple(runs), decides, limit, clocks, doubt, tuple(seen or [CLEAN] * len(runs)))
