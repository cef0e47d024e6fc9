"""One process of a comparison: all variants built anew, and measured block by block in random order.

Drift hits all alike, as each round holds one block of each. torch's compile caches (Inductor's and
Triton's, one folder per user) serve all processes, so that only the first compiles; the algorithms
that max-autotune chose there are thereby used in the others too.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from helpers.annex.comparison import CONTROL, REFERENCE, Contribution
from helpers.annex.variants import build, parse
from helpers.annex.variants.guard import no_recompilation
from helpers.bench_latency import Bench, Measuring
from helpers.clocks.checks import move_inputs
from helpers.clocks.conditions import eval_mode, measuring_conditions, no_gc, tf32
from helpers.environment.facts import first_line
from helpers.environment.readings import Looker
from helpers.validation.processes import unpack_model

ROUNDS = 25  # per process; blocks are thereby short, and each costs one unmeasured forward


@dataclass(frozen=True)
class Task:
    """What each process shall measure; it travels by pickle.

    `model` of `pack_model`; `inputs` (N, 3, H, W) on the CPU; `names` of variants, the reference
    among them; `samples` per entry and clock.
    """

    model: tuple[str, bytes]
    inputs: tuple[torch.Tensor, ...]
    names: tuple[str, ...]
    device: torch.device
    clock: str
    warmup_iters: int
    samples: int
    seed: int


def measure_process(task: Task, number: int) -> Contribution:
    """Build, warm up and measure all variants in this process, the `number`-th.

    A variant that cannot be built or measured has no run, and why is said. Its clock is the
    host's alone where it cannot be queued.

    Raises
    ------
    Exception
        Of any type: the reference itself cannot be measured.
    """
    model = unpack_model(task.model).to(task.device)
    inputs, entries = move_inputs(task.inputs, task.device), _Entries()
    for name in sorted(task.names, key=lambda name: name != REFERENCE):
        with entries.alone(name):
            variant = parse(name)
            call = build(variant, model, inputs[0])
            for entry in (name, CONTROL) if name == REFERENCE else (name,):
                entries.benches[entry] = _warm(call, variant.conditions, inputs, task)
    with _shared_conditions(entries.benches.values()):
        measuring = _take_rounds(entries, task, np.random.default_rng([task.seed, number]))
    return Contribution({n: measuring[n].result() for n in entries.benches}, entries.failed)


class _Entries:
    """The benches that are still in the race, and why others are not."""

    def __init__(self):
        self.benches: dict[str, Bench] = {}
        self.failed: dict[str, str] = {}

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Let one entry fail alone, unless nothing can be compared without it."""
        try:
            yield
        except BaseException as error:  # a model may raise anything, SystemExit too
            if name in (REFERENCE, CONTROL) or isinstance(error, KeyboardInterrupt):
                raise
            self.failed[name] = first_line(error)
            self.benches.pop(name, None)


def _warm(call: Callable, precision: str, inputs, task: Task) -> Bench:
    with measuring_conditions(call, precision) as seen:
        bench = Bench(call, inputs, task.device, precision, seen, task.clock)
        bench.warm_up(task.warmup_iters)
        bench.check()
    return bench


def _take_rounds(entries: _Entries, task: Task, random: np.random.Generator) -> dict:
    """Take all rounds, one look at the machine between two; see that no model has changed."""
    look, block = Looker(task.device), math.ceil(task.samples / ROUNDS)
    measuring = {name: bench.new_run(task.samples) for name, bench in entries.benches.items()}
    for _ in range(math.ceil(task.samples / block)):
        _show(look(), measuring)
        for name in random.permutation(list(entries.benches)).tolist():
            with entries.alone(name), tf32(entries.benches[name].precision == "tf32"):
                _measure_block(measuring[name], block)
    _show(look(), measuring)
    for name, bench in list(entries.benches.items()):
        with entries.alone(name), tf32(bench.precision == "tf32"):
            bench.check()
    return measuring


def _show(look, measuring: dict[str, Measuring]) -> None:
    for one in measuring.values():
        one.saw(look)


def _measure_block(measuring: Measuring, size: int) -> None:
    with no_recompilation() as seen:
        measuring.measure_block(size)
    if seen.compilations or seen.graph_breaks:
        raise RuntimeError(
            f"torch.compile compiled {seen.compilations} graph(s) anew and broke "
            f"{seen.graph_breaks} while it was timed"
        )


@contextmanager
def _shared_conditions(benches: Iterable[Bench]) -> Iterator[None]:
    """What `measuring_conditions` holds for one model but the TF32 switches, for all at once."""
    with ExitStack() as stack:
        for bench in benches:
            stack.enter_context(eval_mode(bench.model))
        stack.enter_context(no_gc())
        stack.enter_context(torch.inference_mode())
        yield
