"""What a request waits that comes after a pause: single forwards, each after an idle time.

Before each pause the machine is kept at work, so that a forward knows one pause alone, whatever
came before. Both clocks read the same forward. The host's is the day's (`host_latencies`) and holds
the records of two events besides, a few µs; the GPU's is that pair of events, without gate or
queue: it begins when the first one reaches an idle GPU, and launch gaps are in it.
"""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from helpers import stats
from helpers.annex.comparison import REFERENCE
from helpers.annex.comparison.process import warm_entries
from helpers.annex.entries import Candidates
from helpers.bench_latency import Bench
from helpers.clocks import host_latencies
from helpers.clocks.conditions import no_gc, tf32
from helpers.environment.facts import first_line
from helpers.environment.nvml import find_gpu, performance_state, sm_clock_mhz
from helpers.environment.progress import track
from helpers.validation.processes import in_fresh_process, pack_model

SECONDS = 2.0  # per pause, variant and process, as far as the two limits below allow
FEWEST, MOST = 6, 100  # samples: 6 bracket a median at 95 %, a p95 needs 72 independent ones
BUSY_MS, BUSY_SHARE = 5.0, 0.1  # at work before a pause: so long, or this share of the pause before


@dataclass(frozen=True)
class Forward:
    """One forward after a pause; durations in ms, None what this machine does not tell."""

    variant: str
    pause_ms: float  # asked for; `idle_ms` is what it was
    idle_ms: float
    before_ms: float  # the forward that came before the pause, host clock
    host_ms: float
    gpu_ms: float | None
    sm_mhz: int | None  # read at the end of the pause, which holds the reading;
    p_state: int | None  # right after the forward where the pause is shorter than that


@dataclass
class Paused:
    """Each process's forwards, in the order of measurement, and why it has none of a variant."""

    names: tuple[str, ...]
    pauses_ms: tuple[float, ...]
    asked: int  # processes
    processes: list[tuple[list[Forward], dict[str, str]]] = field(default_factory=list)
    stopped: str = ""  # why there are fewer

    def of(self, name: str, pause_ms: float, column: str) -> list[list]:
        """One column for one variant and pause, by process, as far as there is any."""
        key, taken = (name, pause_ms), [forwards for forwards, _ in self.processes]
        found = [[getattr(f, column) for f in t if (f.variant, f.pause_ms) == key] for t in taken]
        return [values for values in found if values and None not in values]

    def level(self, name: str, pause_ms: float, clock: str, q: float) -> list[float]:
        """The q-quantile by process (ms): a median of any, else none unless all are long enough."""
        samples = self.of(name, pause_ms, f"{clock}_ms")
        try:
            for found in samples if q != 0.5 else ():
                stats.quantile_interval(found, q)
        except ValueError:  # worth fewer than it takes
            return []
        return [stats.percentile(found, q) for found in samples]


def measure_pauses(candidates: Candidates) -> Paused | None:
    """Measure fp32 and all admitted variants in each of `runs` fresh processes; None if not asked.

    0, 1, 10, 100 and 1,000 ms take about 13 s per variant and process. One that fails ends it.
    """
    parameters, device = candidates.parameters, candidates.device
    pauses = sorted({float(pause) for pause in parameters.pauses_ms.split(",") if pause.strip()})
    names = tuple(candidates.admitted) or (REFERENCE,)
    paused = Paused(names, tuple(pauses), parameters.runs)
    for number in track(range(1, parameters.runs + 1 if pauses else 1), description="pauses"):
        try:
            packed, inputs = pack_model(candidates.model), [b.cpu() for b in candidates.inputs]
            given = packed, inputs, names, device, parameters, number, pauses
            paused.processes.append(in_fresh_process(measure_process, *given))
        except Exception as error:  # whatever ends a process, or keeps the model from reaching it
            paused.stopped = first_line(error)
            break
    return paused if pauses else None


def measure_process(
    packed, inputs, names, device, parameters, number, pauses_ms, wait=time.sleep, read_before=True
) -> tuple[list[Forward], dict[str, str]]:
    """Build all variants here, then take forwards of each after each pause, in random order.

    Given what `comparison.process.measure_process` is. `wait` passes so many seconds; without
    `read_before` the GPU's state is always read after the forward.
    """
    warm = replace(parameters, clock="host")  # no gate is needed
    entries = warm_entries(packed, inputs, names, device, warm, control=False)
    timed = device.type == "cuda" and parameters.clock != "host"
    with torch.cuda.device(device) if timed else nullcontext(), no_gc(), torch.inference_mode():
        taker, forwards = _Taker(device, wait, read_before, timed), []
        plan = [(n, p) for n, b in entries.benches.items() for p in taker.planned(b, pauses_ms)]
        for at in np.random.default_rng([parameters.seed, number]).permutation(len(plan)):
            name, pause_ms = plan[at]
            if bench := entries.benches.get(name):
                with entries.alone(name), tf32(bench.precision == "tf32"):
                    forwards.append(taker.take(name, bench, pause_ms))
    return [f for f in forwards if f.variant in entries.benches], entries.failed


class _Taker:
    """Takes single forwards after pauses; `events`: with the GPU's clock too."""

    def __init__(self, device: torch.device, wait, read_before: bool, events: bool):
        self._wait, self._busy_ms, handle = wait, BUSY_MS, find_gpu(device)[0]
        self._read = lambda _: (sm_clock_mhz(handle), performance_state(handle))
        self._read_ms = float(np.median(host_latencies(self._read, [None], 5, device)))
        self._shortest_ms = self._read_ms if read_before else math.inf  # pause that is read within
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2 * events)]

    def planned(self, bench: Bench, pauses_ms: Sequence[float]) -> list[float]:
        """All pauses, each as often as its time allows."""
        pauses, usual_ms = np.array(pauses_ms), np.median(bench.warmup.samples_ms[-25:])
        each_ms = pauses * (1 + BUSY_SHARE) + BUSY_MS + 2 * usual_ms + self._read_ms
        return np.repeat(pauses, (1e3 * SECONDS / each_ms).astype(int).clip(FEWEST, MOST)).tolist()

    def take(self, name: str, bench: Bench, pause_ms: float) -> Forward:
        """Work, pause, take one forward."""
        model, inputs, events, device = bench.model, bench.inputs, self._events, bench.device

        def between_events(batch) -> None:
            events[0].record()
            model(batch)
            events[1].record()

        work = math.ceil(self._busy_ms / np.median(bench.warmup.samples_ms[-25:]))
        before_ms = float(host_latencies(model, inputs, work, device)[-1])
        begun, state = time.perf_counter(), None
        if pause_ms > self._shortest_ms:
            self._wait((pause_ms - self._read_ms) / 1e3)
            state = self._read(None)
        elif pause_ms:
            self._wait(pause_ms / 1e3)
        idle_ms = 1e3 * (time.perf_counter() - begun)
        call, batch = between_events if events else model, inputs[work % len(inputs)]
        host_ms = float(host_latencies(call, [batch], 1, device)[0])
        gpu_ms = events[0].elapsed_time(events[1]) if events else None
        self._busy_ms = max(BUSY_MS, BUSY_SHARE * pause_ms)
        state = state or self._read(None)
        return Forward(name, pause_ms, idle_ms, before_ms, host_ms, gpu_ms, *state)
