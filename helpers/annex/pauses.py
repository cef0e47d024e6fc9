"""What a request waits that comes after a pause: single forwards, each after an idle time.

Before each pause the machine is kept at work: a forward knows one pause alone. Both clocks read the
same forward: the host's is the day's (`host_latencies`) and holds the records of two events, a few
µs; the GPU's is that pair of events without gate or queue, and launch gaps are in it.
"""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch

from helpers import stats
from helpers.annex.comparison import REFERENCE, Contribution, Measured
from helpers.annex.comparison.process import alone, warm_benches
from helpers.annex.entries import Candidates
from helpers.bench_latency import Bench
from helpers.clocks import host_latencies
from helpers.clocks.conditions import no_gc, tf32
from helpers.environment.facts import first_line
from helpers.environment.nvml import find_gpu, performance_state, sm_clock_mhz
from helpers.environment.progress import track
from helpers.validation.processes import in_fresh_process, pack_model

MOST, SECONDS = 150, 4.0  # samples per pause, where so many fit in: a p95 needs 72 independent ones
FEWEST, SHARE = 3, 1 / 3  # else what this share of the time holds, for a median
BUSY_MS, BUSY_SHARE = 4.0, 0.1  # at work before a pause: so long, or this share of the pause before


@dataclass(frozen=True)
class Forward:
    """One forward after a pause; durations in ms, None what this machine does not tell."""

    pause_ms: float  # asked for; `idle_ms` is what it was
    idle_ms: float
    before_ms: float  # the forward that came before the pause, host clock
    host_ms: float
    gpu_ms: float | None
    sm_mhz: int | None  # read at the end of the pause, which holds the reading;
    p_state: int | None  # right after the forward where the pause is shorter than that


@dataclass
class Paused(Measured):
    """What the processes gave so far; a run is a list of `Forward`, in the order of measurement."""

    names: tuple[str, ...] = ()
    pauses_ms: tuple[float, ...] = ()

    def of(self, name: str, pause: float, column: str) -> list[list]:
        """One column for one variant and pause, by process, as far as there is any."""
        runs = [[getattr(f, column) for f in run if f.pause_ms == pause] for run in self.runs(name)]
        return [values for values in runs if values and None not in values]

    def level(self, name: str, pause: float, clock: str, q: float) -> list[float]:
        """The q-quantile by process (ms): a median of any, else none unless all are long enough."""
        samples = self.of(name, pause, f"{clock}_ms")
        try:
            for found in samples if q != 0.5 else ():
                stats.quantile_interval(found, q)
        except ValueError:  # worth fewer than it takes
            return []
        return [stats.percentile(found, q) for found in samples]


def measure_pauses(candidates: Candidates, session) -> Paused | None:
    """Measure fp32 and all admitted variants in `runs` fresh processes, until one fails.

    None if no pause is asked for; 0, 1, 10, 100 and 1,000 ms take 10 s per variant and process.
    ResultsError, before anything is measured, where the session is complete.
    """
    parameters, names = candidates.parameters, tuple(candidates.admitted) or (REFERENCE,)
    asked = {float(pause) for pause in parameters.pauses_ms.split(",") if pause.strip()}
    paused = Paused(names=names, pauses_ms=tuple(sorted(asked)))
    if asked:
        session.check_open()
    for number in track(range(1, parameters.runs + 1 if asked else 1), description="pauses"):
        try:
            given = pack_model(candidates.model), [b.cpu() for b in candidates.inputs], names
            given += candidates.device, parameters, number, paused.pauses_ms
            paused.processes.append(in_fresh_process(measure_process, *given))
        except Exception as error:  # whatever ends a process, or keeps the model from reaching it
            paused.stopped = first_line(error)
            break
    return paused if asked else None


def measure_process(
    packed, inputs, names, device, parameters, number, pauses_ms, wait=time.sleep, read_before=True
) -> Contribution:
    """Build all variants here, then take forwards of each after each pause, in random order.

    `wait` passes so many seconds; without `read_before` the state is read after every forward.
    """
    given = packed, inputs, names, device, replace(parameters, clock="host")  # no gate
    benches, failed = warm_benches(*given, control=False)
    timed = device.type == "cuda" and parameters.clock != "host"
    with torch.cuda.device(device) if timed else nullcontext(), no_gc(), torch.inference_mode():
        taker = _Taker(device, wait, read_before, timed)
        plan = [(name, p) for name in benches for p in taker.planned(benches[name], pauses_ms)]
        np.random.default_rng([parameters.seed, number]).shuffle(plan)
        runs = {name: [] for name in benches}
        for name, pause_ms in plan:
            if name not in failed:
                with alone(name, failed), tf32(benches[name].precision == "tf32"):
                    runs[name].append(taker.take(benches[name], pause_ms))
    return Contribution({n: run for n, run in runs.items() if n not in failed}, failed)


class _Taker:
    """Takes single forwards after pauses; `events`: with the GPU's clock too."""

    def __init__(self, device: torch.device, wait, read_before: bool, events: bool):
        self._wait, self._busy_ms, handle = wait, BUSY_MS, find_gpu(device)[0]
        self._read = lambda _: (sm_clock_mhz(handle), performance_state(handle))
        self._read_ms = float(np.median(host_latencies(self._read, [None], 5, device)))
        self._shortest_ms = self._read_ms if read_before else math.inf  # pause that is read within
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2 * events)]
        for event in self._events:  # made by its first record
            event.record()

    def planned(self, bench: Bench, pauses_ms: tuple[float, ...]) -> list[float]:
        """All pauses, each as often as its time allows."""
        pauses, usual_ms = np.array(pauses_ms), np.median(bench.warmup.samples_ms[-25:])
        each_ms = pauses * (1 + BUSY_SHARE) + BUSY_MS + 2 * usual_ms + self._read_ms
        fit = 1e3 * SECONDS / each_ms
        counts = np.where(fit < MOST, np.maximum(SHARE * fit, FEWEST), MOST)
        return np.repeat(pauses, counts.astype(int)).tolist()

    def take(self, bench: Bench, pause_ms: float) -> Forward:
        """Work, pause, take one forward."""
        model, inputs, events, device = bench.model, bench.inputs, self._events, bench.device

        def between_events(batch) -> None:
            events[0].record()
            model(batch)
            events[1].record()

        work = math.ceil(self._busy_ms / np.median(bench.warmup.samples_ms[-25:]))
        before_ms = host_latencies(model, inputs, work, device)[-1].item()
        begun, within = time.perf_counter(), pause_ms > self._shortest_ms
        if pause_ms:
            self._wait((pause_ms - within * self._read_ms) / 1e3)
        state = self._read(None) if within else None
        idle_ms = 1e3 * (time.perf_counter() - begun)
        call, batch = between_events if events else model, inputs[work % len(inputs)]
        host_ms = host_latencies(call, [batch], 1, device).item()
        state = state or self._read(None)
        gpu_ms = events[0].elapsed_time(events[1]) if events else None
        self._busy_ms = max(BUSY_MS, BUSY_SHARE * pause_ms)
        return Forward(pause_ms, idle_ms, before_ms, host_ms, gpu_ms, *state)
