"""A long run: memory stays flat, and what the reader sees stays small, whatever `measure_iters`."""

import io

import numpy as np
import psutil
import pytest
import torch
from fakes import make_run

from helpers.bench_latency import BLOCK, prepared
from helpers.display import plots, tables, verdict
from helpers.validation import judge

INPUTS = [torch.ones(1, 4)]
SLACK = 48 << 20  # bytes that the allocator and libraries may keep, whatever the length
SHOWN_LIMIT = 1_500_000  # bytes of figures, tables and sentences of the measured part
LONG = pytest.param(1_000_000, marks=pytest.mark.slow)


def resident():
    return psutil.Process().memory_info().rss


@pytest.mark.parametrize("iterations", [100_000, LONG])
def test_memory_is_flat_while_it_measures(iterations):
    grown = []
    with prepared(lambda x: x, INPUTS, 50) as bench:
        measuring = bench.new_run(iterations)
        while not measuring.complete:
            measuring.measure_block()
            grown.append(resident())
        run = measuring.result()
    settled = grown[len(grown) // 10]
    assert run.host.n == iterations
    assert run.block == BLOCK
    assert grown[-1] - settled <= iterations * 8 * 2 + SLACK / 2  # the blocks alone: 8 bytes each
    assert resident() - settled <= iterations * 3 * 8 + SLACK  # blocks, joined, copied read-only


def long_runs(iterations):
    draw = np.random.default_rng(0).gamma
    samples = ((1.9 + draw(2, 0.1, iterations), 1.3 + draw(2, 0.01, iterations)) for _ in range(3))
    return [make_run(*both) for both in samples]


def shown_bytes(runs) -> int:
    """Size of what the notebook stores of a measurement: figures, tables and sentences."""
    found, stored = judge(runs, max_p95_spread=1e-9), io.BytesIO()
    plots.plot_over_time(runs, "cifar10", found.seen).savefig(stored)
    plots.plot_distribution(runs, "cifar10").savefig(stored)
    plots.plot_p95_runs(found, "cifar10").savefig(stored)
    texts = [verdict.clock_sentence(clock, found) for clock in found.clocks.values()]
    texts += [tables.latency_table(runs).to_html(), tables.spread_table(found).to_html()]
    return len(stored.getvalue()) * 4 // 3 + sum(map(len, texts))


@pytest.mark.parametrize("iterations", [20_000, LONG])
def test_what_the_notebook_stores_does_not_grow(iterations):
    short, long = shown_bytes(long_runs(500)), shown_bytes(long_runs(iterations))
    assert long <= min(SHOWN_LIMIT, 2 * short)
