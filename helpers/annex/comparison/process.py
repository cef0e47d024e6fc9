"""One process of a comparison: all variants built anew, then measured in turn, block by block.

Each round holds one block of each, in random order: drift hits all alike. torch's compile caches
(Inductor's and Triton's, in one folder per user) serve all processes, so that only the first one
compiles; the algorithms that max-autotune chose there are thereby the others' too.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from helpers.annex.comparison import CONTROL, REFERENCE, Contribution
from helpers.annex.variants import build, parse
from helpers.annex.variants.guard import no_recompilation
from helpers.bench_latency import Bench, Measuring
from helpers.clocks.checks import move_inputs
from helpers.clocks.conditions import measuring_conditions, no_gc, tf32
from helpers.environment.facts import first_line
from helpers.environment.readings import Looker
from helpers.parameters import Parameters
from helpers.validation.processes import unpack_model

ROUNDS = 25  # per process; each block costs one unmeasured forward
FEWEST_SAMPLES = 20  # the smallest n whose p95 is not the maximum


def samples_per_process(parameters: Parameters) -> int:
    """Samples per entry and clock: in all processes together, as many as in the session's runs."""
    samples = parameters.runs * parameters.measure_iters / parameters.compare_processes
    return max(math.ceil(samples), FEWEST_SAMPLES)


def measure_process(
    packed: tuple[str, bytes],
    inputs: Sequence[torch.Tensor],
    names: Sequence[str],
    device: torch.device,
    parameters: Parameters,
    number: int,
) -> Contribution:
    """Build, warm up and measure all variants in this process, the comparison's `number`-th.

    `packed` is the model, of `pack_model`; the first of `names` is the reference, and whatever it
    raises is raised here. Another that cannot be built or measured has no run, and why is said.
    """
    entries = warm_entries(packed, inputs, names, device, parameters)
    random = np.random.default_rng([parameters.seed, number])
    with no_gc(), torch.inference_mode():  # all are in eval mode since they were built
        measuring = _take_rounds(entries, Looker(device), samples_per_process(parameters), random)
    return Contribution({n: measuring[n].result() for n in entries.benches}, entries.failed)


def warm_entries(packed, inputs, names, device, parameters, control: bool = True) -> "Entries":
    """Build and warm up all variants, as `measure_process` says; the reference twice if `control`.

    Take samples under `no_gc`, `inference_mode` and the entry's own `tf32`.
    """
    model, inputs = unpack_model(packed).to(device), move_inputs(inputs, device)
    entries = Entries()
    for name in names:
        with entries.alone(name):
            variant = parse(name)
            call = build(variant, model, inputs[0])
            for entry in (name, CONTROL) if control and name == REFERENCE else (name,):
                with measuring_conditions(call, variant.conditions) as seen:
                    bench = Bench(call, inputs, device, variant.conditions, seen, parameters.clock)
                    bench.warm_up(parameters.warmup_iters)
                entries.benches[entry] = bench
    return entries


class Entries:
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


def _take_rounds(entries: Entries, look, samples: int, random) -> dict[str, Measuring]:
    """Take all rounds, one look for all between two; then see that no model has changed."""
    measuring = {name: bench.new_run(samples) for name, bench in entries.benches.items()}
    block = math.ceil(samples / ROUNDS)
    orders = [random.permutation(list(measuring)) for _ in range(math.ceil(samples / block))]
    for order in (*orders, ()):
        seen = look()
        for one in measuring.values():
            one.saw(seen)
        for name in filter(entries.benches.__contains__, map(str, order)):
            with entries.alone(name), tf32(entries.benches[name].precision == "tf32"):
                with no_recompilation() as compiled:
                    measuring[name].measure_block(block)
                if compiled:
                    raise RuntimeError(f"torch.compile worked while it was timed: {compiled}")
    for name, bench in list(entries.benches.items()):
        with entries.alone(name), tf32(bench.precision == "tf32"):
            bench.check()
    return measuring
