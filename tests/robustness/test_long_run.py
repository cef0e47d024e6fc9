"""A long run: memory stays flat, whatever `measure_iters`."""

import psutil
import pytest
import torch

from helpers.bench_latency import BLOCK, Measuring, prepared

INPUTS = [torch.ones(1, 4)]
SLACK = 48 << 20  # bytes that the allocator and libraries may keep, whatever the length
PROCESS = psutil.Process()


@pytest.mark.parametrize("iterations", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_memory_is_flat_while_it_measures(iterations):
    grown = []
    with prepared(lambda x: x, INPUTS, 50) as bench:
        measuring = Measuring(bench, iterations)
        while not measuring.complete:
            measuring.measure_block()
            grown.append(PROCESS.memory_info().rss)
        run = measuring.result()
    settled = grown[len(grown) // 10]
    assert run.host.n == iterations
    assert run.block == BLOCK
    assert grown[-1] - settled <= iterations * 8 * 2 + SLACK / 2  # the blocks alone: 8 bytes each
    left = PROCESS.memory_info().rss - settled  # blocks, joined, copied read-only
    assert left <= iterations * 3 * 8 + SLACK
