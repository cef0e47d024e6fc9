"""A long run: memory stays flat, and what the reader sees stays small, whatever `measure_iters`."""

import numpy as np
import psutil
import pytest
import torch
from fakes import make_result

from helpers.bench_latency import BLOCK, benchmark_latency
from helpers.clocks.calibration import calibrate
from helpers.display import plots, tables
from helpers.display.verdict import verdict_sentences
from helpers.validation import judge
from helpers.validation.interference import Observation, Watch, describe
from helpers.validation.interference.evidence import Tag

INPUTS = [torch.ones(1, 4)]
BYTES_A_SAMPLE = 3 * 8  # measured in blocks, joined, and copied read-only
SLACK = 48 << 20  # bytes that the allocator and libraries may keep, whatever the length
SHOWN_LIMIT = 1_500_000  # bytes of figures, tables and sentences of the measured part
LENGTHS = [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("iterations", LENGTHS)
def test_memory_is_flat_while_it_measures(iterations, tell):
    resident, process = [], psutil.Process()
    result = benchmark_latency(
        lambda x: x,
        INPUTS,
        50,
        iterations,
        between_blocks=lambda: resident.append(process.memory_info().rss),
    )
    assert result.host.n == iterations
    settled = resident[len(resident) // 10]
    growth = process.memory_info().rss - settled
    assert growth <= iterations * BYTES_A_SAMPLE + SLACK
    during = resident[-1] - settled  # the blocks alone: 8 bytes a sample
    assert during <= iterations * 8 * 2 + SLACK / 2
    tell(
        f"{iterations:,} iterations: resident memory grew by {during / 2**20:.1f} MiB while they "
        f"were measured, by {growth / 2**20:.1f} MiB with the summary"
    )


@pytest.mark.parametrize("blocks", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_looking_between_blocks_costs_little_memory_each_time(blocks, tell):
    watch, process = Watch("cpu"), psutil.Process()
    for _ in range(50):
        watch.look()
    before = process.memory_info().rss
    for _ in range(blocks):
        watch.look()
    each = (process.memory_info().rss - before) / blocks
    assert each <= 4096 + SLACK / blocks
    tell(f"{blocks:,} looks between blocks: {max(each, 0) / 1024:.2f} KiB of memory each")


def long_results(iterations):
    rng = np.random.default_rng(0)
    return [
        make_result(
            1.9 + rng.gamma(2, 0.1, iterations) + 0.1 * run, 1.3 + rng.gamma(2, 0.01, iterations)
        )
        for run in range(3)
    ]


def shown_bytes(results) -> int:
    """Size of what the notebook stores of a measurement: figures, tables and sentences."""
    validation = judge(results, max_p95_spread=1e-9)
    p95 = {name: clock.p95_ms for name, clock in validation.clocks.items()}
    figures = [
        plots.plot_latency_over_time(results, "cifar10"),
        plots.plot_distribution(results, "cifar10"),
        plots.plot_p95_runs(p95, "cifar10", 0.1),
    ]
    text = [tables.latency_table(results), tables.spread_table(validation)]
    sentences = verdict_sentences(validation, calibrate(torch.device("cpu")), None)
    return sum(len(plots.show(figure).data) * 4 // 3 for figure in figures) + sum(
        len(t if isinstance(t, str) else t.to_html()) for t in [*text, *sentences]
    )


@pytest.mark.parametrize("iterations", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_what_the_notebook_stores_does_not_grow(iterations, tell):
    short, long = shown_bytes(long_results(500)), shown_bytes(long_results(iterations))
    assert long <= SHOWN_LIMIT
    assert long <= 2 * short
    tell(
        f"figures, tables and verdict of 3 runs in the notebook: {short / 1000:.0f} kB at 500 "
        f"iterations, {long / 1000:.0f} kB at {iterations:,}"
    )


def test_what_is_said_of_disturbances_does_not_grow():
    said = []
    for blocks in (100, 10_000):
        observed = [tagged_block(index) for index in range(blocks)]
        said.append(sum(map(len, describe(observed, run=1))))
    assert said[1] <= 2 * said[0]


def tagged_block(index: int) -> Observation:
    fields = dict.fromkeys(Observation.__dataclass_fields__)
    seen = {"block": index, "foreign_pids": (), "idle_foreigners": 0, "values": {}, "unseen": ()}
    tag = Tag("cpu_load", float(index % 2), 0.5, "CPU occupé à 90 %")
    return Observation(**{**fields, **seen, "tags": (tag,)})


def test_blocks_are_as_many_as_looks_not_as_samples():
    looks = []
    benchmark_latency(lambda x: x, INPUTS, 5, 10_000, between_blocks=lambda: looks.append(1))
    assert len(looks) == 10_000 // BLOCK + 1
