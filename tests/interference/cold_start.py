"""Runs in fresh processes on a GPU that was idle: with a whole warm-up, and with one cut short.

They come before any injector: a process that holds a context keeps the GPU's clock up.
"""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import torch
from torchvision.models import resnet18

from helpers.bench_latency import benchmark_latency
from helpers.validation.interference import Watch

IDLE_S = 1.0  # without any context: then the GPU lowers its clock
WARMUPS = {"cold_start": 1, "clean_process": 50}


def measure(device: str, warmup: int, iterations: int) -> tuple:
    """One run in this process, the first thing it does on the GPU: (result, observations)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = resnet18(num_classes=10).to(device)
    images = [torch.randn(1, 3, 32, 32) for _ in range(8)]
    watch = Watch(device)
    result = benchmark_latency(model, images, warmup, iterations, between_blocks=watch.look)
    return result, watch.observations(result)


def cold_runs(device: str, rounds: int, iterations: int) -> list[tuple]:
    """(kind, round, seconds, result, observations) of `rounds` runs of either kind, in turn."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.interference.cold_start"])
    runs = []
    for index in range(rounds):
        for kind, warmup in WARMUPS.items():
            time.sleep(IDLE_S)
            start = time.perf_counter()
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                result, seen = pool.submit(measure, device, warmup, iterations).result()
            runs.append((kind, index, time.perf_counter() - start, result, seen))
    return runs
