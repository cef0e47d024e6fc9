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
    benches, failed = warm_benches(packed, inputs, names, device, parameters)
    random = np.random.default_rng([parameters.seed, number])
    # In all processes together as many samples as in the session's own runs.
    samples = parameters.runs * parameters.measure_iters / parameters.compare_processes
    samples = max(math.ceil(samples), 20)  # the smallest n whose p95 is not the maximum
    with no_gc(), torch.inference_mode():  # all are in eval mode since they were built
        measuring = _take_rounds(benches, failed, Looker(device), samples, random)
    return Contribution({n: m.result() for n, m in measuring.items() if n not in failed}, failed)


def warm_benches(packed, inputs, names, device, parameters, control: bool = True):
    """Build and warm up all variants; returns them and why others failed, by name.

    The reference comes twice if `control`. Take samples under `no_gc`, `inference_mode` and the
    bench's own `tf32`.
    """
    model, inputs = unpack_model(packed).to(device), move_inputs(inputs, device)
    benches: dict[str, Bench] = {}
    failed: dict[str, str] = {}
    for name in names:
        with alone(name, failed), no_gc():
            variant = parse(name)
            call = build(variant, model, inputs[0])
            for entry in (name, CONTROL) if control and name == REFERENCE else (name,):
                with measuring_conditions(call, variant.conditions) as seen:
                    bench = Bench(call, inputs, device, variant.conditions, seen, parameters.clock)
                    bench.warm_up(parameters.warmup_iters)
                benches[entry] = bench
    return benches, failed


@contextmanager
def alone(name: str, failed: dict[str, str]) -> Iterator[None]:
    """Let one entry fail alone, unless nothing can be compared without it."""
    try:
        yield
    except BaseException as error:  # a model may raise anything, SystemExit too
        if name in (REFERENCE, CONTROL) or isinstance(error, KeyboardInterrupt):
            raise
        failed[name] = first_line(error)


def _take_rounds(benches: dict, failed: dict, look, samples: int, random) -> dict[str, Measuring]:
    """Take all rounds, one look for all between two; then see that no model has changed."""
    measuring = {name: Measuring(bench, samples) for name, bench in benches.items()}
    block = math.ceil(samples / ROUNDS)
    orders = [random.permutation(list(measuring)) for _ in range(math.ceil(samples / block))]
    for order in (*orders, ()):
        seen = look()
        for one in measuring.values():
            one.saw(seen)
        for name in (name for name in map(str, order) if name not in failed):
            with alone(name, failed), tf32(benches[name].precision == "tf32"):
                with no_recompilation() as compiled:
                    measuring[name].measure_block(block)
                if compiled:
                    raise RuntimeError(f"torch.compile worked while it was timed: {compiled}")
    for name in benches.keys() - failed:
        with alone(name, failed), tf32(benches[name].precision == "tf32"):
            benches[name].check()
    return measuring
