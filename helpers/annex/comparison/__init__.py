"""Variants measured in turn, block by block in random order, so that drift hits all alike.

The reference takes part twice, as itself and as the A/A control: whatever a session "finds" between
those two is its own error. Copies of the reference in other memory are a second control: on an H100
the place in memory alone moves the GPU latency by up to 2.6 %.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from helpers.annex.comparison.stats import MIN_ROUNDS, Ratio, compare_rounds, placement_bound
from helpers.annex.variants.guard import no_recompilation
from helpers.bench_latency import Bench, LatencyResult, Run
from helpers.clocks.checks import check_count, move_inputs
from helpers.clocks.conditions import eval_mode, measuring_conditions, no_gc, tf32
from helpers.environment.facts import first_line
from helpers.progress import track
from helpers.validation.interference import Observation, Watch

# Short blocks keep the compared samples close in time; each costs one unmeasured forward.
ROUNDS_PER_RUN = 50
CLOCKS = ("gpu", "host")
TOO_FEW_ROUNDS = f"fewer than {MIN_ROUNDS} rounds: raise runs or measure_iters"


@dataclass(frozen=True)
class Interleaved:
    """What was measured: by entry, the reference first, its A/A control second.

    `runs`: one LatencyResult per run; its samples are blocks of `block` samples, one per round.
    `orders`: the entries' order in each round. `observed`: per run, what was seen around each
    round. `failed`: entries that could not be measured, and why.
    """

    runs: dict[str, tuple[LatencyResult, ...]]
    reference: str
    control: str
    copies: tuple[str, ...]
    block: int
    orders: tuple[tuple[str, ...], ...]
    observed: tuple[tuple[Observation, ...], ...]
    failed: dict[str, str]


@dataclass(frozen=True)
class Comparison:
    """Ratios to the reference by clock and entry, the A/A control and the copies among them.

    `placement`: by clock, what copies of one model may differ by, and no difference between
    variants can be believed below; absent where no copy was measured.
    `refused`: by clock, why there are no ratios.
    """

    reference: str
    control: str
    copies: tuple[str, ...]
    rounds: int
    ratios: dict[str, dict[str, Ratio]]
    placement: dict[str, float]
    refused: dict[str, str]

    @property
    def controls(self) -> tuple[str, ...]:
        """The entries that are the reference itself: no variants."""
        return (self.control, *self.copies)

    def within_placement(self, clock: str, name: str) -> bool:
        """Is this difference no larger than what copies of one model may show?"""
        ratio = self.ratios[clock][name].ratio
        bound = self.placement.get(clock, 0.0)
        return abs(math.log(ratio)) <= math.log1p(bound)


def control_of(reference: str) -> str:
    """Name of the reference's second entry."""
    return f"{reference} (A/A)"


def measure_interleaved(
    callables: dict[str, tuple[Callable, str]],
    dataloader: Iterable,
    *,
    reference: str = "fp32",
    copies: Sequence[str] = (),
    runs: int = 3,
    warmup_iters: int = 50,
    measure_iters: int = 500,
    device: torch.device,
    seed: int = 0,
    watch: Watch | None = None,
) -> Interleaved:
    """Measure all callables in rounds; each round holds one block of each, in random order.

    Parameters
    ----------
    callables
        (callable, precision) by name; the precision is one of `measuring_conditions`, and its
        TF32 switches are set around each of the callable's blocks.
    copies
        Names of those callables that are the reference itself in other memory.
    measure_iters
        Samples per run, entry and clock.
    watch
        Looks between rounds, never inside.

    Raises
    ------
    ValueError
        The reference or a copy is not among the callables, a name is the A/A control's, or a
        number is no whole number of at least 1.
    Exception
        Of any type: the reference itself cannot be measured. Any other entry that cannot is left
        out, and why is said in `failed`.
    """
    control = control_of(reference)
    _check_names(callables, reference, copies, control)
    counts = {"runs": runs, "warmup_iters": warmup_iters, "measure_iters": measure_iters}
    for name, count in counts.items():
        check_count(name, count)
    entries = {reference: callables[reference], control: callables[reference], **callables}
    device, inputs = torch.device(device), move_inputs(dataloader, torch.device(device))
    measuring = _Measuring((reference, control), np.random.default_rng(seed))
    for name, (call, precision) in entries.items():
        with measuring.of(name):
            measuring.benches[name] = _warm(call, precision, inputs, device, warmup_iters)
    with _shared_conditions(bench.model for bench in measuring.benches.values()):
        measuring.take_runs(runs, measure_iters, watch or Watch(device))
    return Interleaved(
        runs={name: tuple(measuring.results[name]) for name in measuring.benches},
        reference=reference,
        control=control,
        copies=tuple(name for name in copies if name in measuring.benches),
        block=block_size(measure_iters),
        orders=tuple(measuring.orders),
        observed=tuple(measuring.observed),
        failed=measuring.failed,
    )


def compare(measured: Interleaved, seed: int = 0) -> Comparison:
    """Ratios of every entry to the reference, by every clock that both have."""
    ratios, placement, refused = {}, {}, {}
    for clock in CLOCKS:
        names = [n for n, runs in measured.runs.items() if all(getattr(r, clock) for r in runs)]
        if measured.reference not in names:
            refused[clock] = measured.runs[measured.reference][0].gpu_unavailable
            continue
        if len(measured.orders) < MIN_ROUNDS:
            refused[clock] = TOO_FEW_ROUNDS
            continue
        blocks = np.stack([block_medians(measured, name, clock) for name in names], axis=1)
        ratios[clock] = dict(zip(names[1:], compare_rounds(blocks, seed=seed), strict=True))
        found = [ratios[clock][name].ratio for name in measured.copies if name in names]
        if found:
            placement[clock] = placement_bound(found)
    return Comparison(
        measured.reference,
        measured.control,
        measured.copies,
        len(measured.orders),
        ratios,
        placement,
        refused,
    )


def block_size(measure_iters: int) -> int:
    """Samples per block, so that a run has at most ROUNDS_PER_RUN rounds."""
    return -(-measure_iters // ROUNDS_PER_RUN)


def block_medians(measured: Interleaved, name: str, clock: str) -> np.ndarray:
    """Median of each of the entry's blocks, (rounds,) in ms, in the order of the rounds."""
    medians = []
    for result in measured.runs[name]:
        samples = getattr(result, clock).samples_ms
        starts = range(0, samples.size, measured.block)
        medians += [np.median(samples[start : start + measured.block]) for start in starts]
    return np.array(medians)


class _Measuring:
    """The benches that are still in the race, and what they have given so far."""

    def __init__(self, indispensable: tuple[str, ...], random: np.random.Generator):
        self._indispensable, self._random = indispensable, random
        self.benches: dict[str, Bench] = {}
        self.results: dict[str, list[LatencyResult]] = {}
        self.orders: list[tuple[str, ...]] = []
        self.observed: list[tuple[Observation, ...]] = []
        self.failed: dict[str, str] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Let one entry fail alone, unless nothing can be compared without it."""
        try:
            yield
        except BaseException as error:  # a model may raise anything, SystemExit too
            if name in self._indispensable or isinstance(error, KeyboardInterrupt):
                raise
            self.failed[name] = first_line(error)
            self.benches.pop(name, None)

    def take_runs(self, runs: int, measure_iters: int, watch: Watch) -> None:
        """Take all runs, one after the other, in rounds; then see that no model has changed."""
        self.results = {name: [] for name in self.benches}
        rounds = -(-measure_iters // block_size(measure_iters))
        for number in range(1, runs + 1):
            turns = {name: bench.new_run(measure_iters) for name, bench in self.benches.items()}
            watch.forget()
            for _ in track(range(rounds), description=f"run {number} sur {runs}"):
                watch.look()
                self._take_round(turns, block_size(measure_iters))
            watch.look()
            self.observed.append(watch.observations())
            for name in self.benches:
                self.results[name].append(turns[name].result())
        for name, bench in list(self.benches.items()):
            with self.of(name), _switches(bench.precision):
                bench.check()

    def _take_round(self, turns: dict[str, Run], block: int) -> None:
        order = tuple(self._random.permutation(list(self.benches)).tolist())
        for name in order:
            with self.of(name):
                with _switches(self.benches[name].precision), no_recompilation() as seen:
                    turns[name].measure_block(block)
                if seen.problem:
                    raise ValueError(
                        f"torch.compile compiled {seen.compilations} graph(s) anew and broke "
                        f"{seen.graph_breaks} while it was timed: give it inputs of one kind"
                    )
        self.orders.append(order)


def _warm(call, precision, inputs, device, warmup_iters: int) -> Bench:
    """A warm bench; what compiles or captures itself does so here, under its own conditions."""
    with measuring_conditions(call, precision) as seen:
        bench = Bench(call, inputs, device, precision, seen)
        bench.warm_up(warmup_iters)
        bench.check()
    return bench


@contextmanager
def _shared_conditions(models: Iterable[Callable]) -> Iterator[None]:
    """What `measuring_conditions` holds for one model but the TF32 switches, for all at once."""
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(eval_mode(model))
        stack.enter_context(no_gc())
        stack.enter_context(torch.inference_mode())
        yield


def _switches(precision: str):
    """The TF32 switches of `measuring_conditions`, cheap enough for each block."""
    return nullcontext() if precision == "default" else tf32(precision == "tf32")


def _check_names(callables, reference: str, copies: Sequence[str], control: str) -> None:
    for what, name in (("reference", reference), *(("copy", name) for name in copies)):
        if name not in callables:
            raise ValueError(f"{what} {name!r} is not among the callables: {', '.join(callables)}")
    if control in callables:
        raise ValueError(
            f"{control!r} is the name of the A/A control, which is added here: leave it out"
        )
