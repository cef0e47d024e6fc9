"""Who else was there: what the looks around each block of samples say, as tags on the block.

`tags` is pure: it reads the looks that runs carry, and nothing else. Tagged samples stay in all
figures. Some tags are read off the GPU samples themselves, so the untagged figures are a diagnosis
and must not replace the others.

The thresholds follow from what they protect, not from trials. The criterion is a p95 that moves by
at most 10 %. Half of that, 5 %, is the most that one known cause may contribute unnoticed; and a
p95 moves once 5 % of the samples are touched, whatever happens to each of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from helpers.bench_latency import Run
from helpers.environment.facts import attempt
from helpers.environment.readings import GpuReading, Look, Process

TOUCHED = 0.05  # share of samples, or of time, beyond which a p95 moves
SLOWER = 0.05  # half of the 10 % criterion; the GPU clock repeats to 0.1 %, NVML's steps are 1 %
BUSY_CPUS = 0.5  # beyond half of the logical CPUs, two of them share a physical core (SMT)
PREEMPTIONS = 5  # a block has 100 samples of each clock: 5 % of them
# A sample of the GPU clock is dispersed when it exceeds its block's lower quartile by 10 %, five
# times what the largest of a clean run does (1.02), and by more than the clock's own 0.004 ms.
DISPERSED, DISPERSED_MS = 1.10, 0.02
STEAL_TICKS_S = 0.03  # the kernel counts stolen time in ticks of 0.01 s: fewer than 3 say nothing
SMALLEST_BLOCK = 20  # samples from which a block's quartile says something

# NVML's clock-event reasons that slow work down. Left out: an idle GPU, clocks set by the user or
# by an application, sync boost and the display's clock are states, not disturbances.
POWER_CAP = 0x04
HARMFUL_REASONS = {POWER_CAP: "power_cap", 0x08: "hardware_slowdown", 0x20: "software_thermal"}
HARMFUL_REASONS |= {0x40: "hardware_thermal", 0x80: "power_brake"}


@dataclass(frozen=True)
class Tag:
    """One thing seen during a block: how much of it, the limit it reached, and the particulars."""

    code: str
    value: float
    limit: float
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunTags:
    """What was seen during a run: the tags of each of its blocks, in their order.

    `unseen`: codes of the rules that could not be applied to some block: not thereby clean.
    `idle_foreigners`: other processes with a context on the GPU that used none of its SMs.
    `steady_power_cap`: a condition of the whole run, no disturbance.
    """

    blocks: tuple[tuple[Tag, ...], ...]
    unseen: tuple[str, ...]
    idle_foreigners: int
    steady_power_cap: bool

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes of all tags, each once."""
        return tuple(dict.fromkeys(tag.code for tags in self.blocks for tag in tags))


def tags(runs: Sequence[Run]) -> tuple[RunTags, ...]:
    """Tag the blocks of every run; the clocks are compared with the best seen in any of them."""
    gpus = [look.gpu for run in runs for look in run.looks if look.gpu]
    best = {n: max((getattr(g, n) or 0 for g in gpus), default=0) for n in ("sm_mhz", "memory_mhz")}
    return tuple(_tags(run, best) for run in runs)


def untagged(run: Run, seen: RunTags, clock: str) -> np.ndarray:
    """Mask (n,) of a run's samples on `clock` whose block carries no tag that matters for it."""
    harmless = HOST_RULES if clock == "gpu" else ()
    clean = [all(tag.code in harmless for tag in found) for found in seen.blocks]
    return np.repeat(np.array(clean, dtype=bool), run.block)[: getattr(run, clock).n]


@dataclass(frozen=True)
class _Block:
    """All that is known of one block: the looks around it, its GPU samples, and its run."""

    before: Look
    after: Look
    gpu_ms: np.ndarray  # (samples of the block,) on the GPU clock; empty where there are too few
    fastest_ms: float  # median of the run's fastest block on the GPU clock
    process: Process
    listed: frozenset[int]  # every pid that NVML has listed on this GPU during the run
    sampled: bool  # NVML gave a process's SM share at least once during the run
    best: dict[str, int]  # the highest clocks seen, in MHz; 0 where not observable
    steady_power_cap: bool

    def rise(self, counter: str, of: str = "host") -> float:
        """Increase of a counter over the block; that of "at_s" is its duration."""
        before, after = (getattr(getattr(x, of), counter) for x in (self.before, self.after))
        return after - before


def _tags(run: Run, best: dict[str, int]) -> RunTags:
    gpus = [look.gpu for look in run.looks if look.gpu]
    capped = len(gpus) == len(run.looks) > 0 and all(
        (gpu.reasons or 0) & POWER_CAP and (gpu.sm_mhz or 0) > (1 - SLOWER) * best["sm_mhz"]
        for gpu in gpus
    )
    listed = frozenset().union(*(gpu.processes or () for gpu in gpus))
    samples = run.gpu.samples_ms if run.gpu else np.zeros(0)
    blocks_ms = [samples[i * run.block :][: run.block] for i in range(len(run.looks) - 1)]
    blocks_ms = [block if block.size >= SMALLEST_BLOCK else np.zeros(0) for block in blocks_ms]
    fastest = min((float(np.median(block)) for block in blocks_ms if block.size), default=0.0)
    of_run = fastest, run.process, listed, any(gpu.shares for gpu in gpus), best, capped
    rules = (GPU_RULES | HOST_RULES) if run.device.startswith("cuda") else HOST_RULES
    tagged, unseen = [], {}
    for looks, gpu_ms in zip(pairwise(run.looks), blocks_ms, strict=True):
        block, found = _Block(*looks, gpu_ms, *of_run), []
        for code, (measure, limit) in rules.items():
            value, values = attempt(measure, block) or (None, {})
            if value is None:
                unseen[code] = True
            elif value >= limit:
                found.append(Tag(code, float(value), limit, values))
        tagged.append(tuple(found))
    idle = max((_idle_foreigners(gpu, run.process, listed) for gpu in gpus), default=0)
    return RunTags(tuple(tagged), tuple(unseen), idle, capped)


def _foreign_shares(gpu: GpuReading, own: frozenset, listed: frozenset) -> dict[int, float]:
    """SM share (0 to 1, mean of the samples) of every process, by pid, that is not ours.

    NVML may report the pids of another PID namespace than ours, and not the same one in both of its
    lists. We compute, so we are in there: where no pid is ours, the largest share is taken for
    ours, and what remains is the least that the others used.
    """
    pids = {pid for pid, _ in gpu.shares or ()}
    shares = {p: float(np.mean([s for pid, s in gpu.shares if pid == p])) / 100 for p in pids}
    namespace_is_ours = bool(own & pids) or (bool(own & listed) and pids <= listed)
    if shares and not namespace_is_ours:
        del shares[max(shares, key=shares.get)]
    return {pid: share for pid, share in shares.items() if pid not in own}


def _idle_foreigners(gpu: GpuReading, process: Process, listed: frozenset[int]) -> int:
    """How many other processes hold a context on the GPU without using its SMs."""
    own, present = process.own, gpu.processes or frozenset()
    others = present - own - _foreign_shares(gpu, own, listed).keys()
    # Under pids of another namespace, we are one of them, or two with the process that spawned us.
    return max(0, len(others) - (0 if present & own else 1 + process.spawned))


# A rule returns how much, to be compared with its limit, and the particulars. Where that is not
# observable it returns None, or the reading that lacks makes it raise.


def _foreign_gpu_process(b: _Block):
    gpu, own = b.after.gpu, b.process.own
    # We are on the GPU: a list without anyone, or shares that never come, hide others as well.
    if gpu.shares is None or not gpu.processes or not b.sampled:
        return None
    shares = _foreign_shares(gpu, own, b.listed)
    total = min(1.0, sum(shares.values()))
    return total, {"share": total, "pids": sorted(shares) if own & b.listed else []}


def _gpu_disturbed(b: _Block):
    level = float(np.quantile(b.gpu_ms, 0.25))
    touched = float(np.mean(b.gpu_ms > max(level * DISPERSED, level + DISPERSED_MS)))
    return touched, {"share": touched, "largest_ms": float(b.gpu_ms.max())}


def _gpu_shift(b: _Block):
    if not b.gpu_ms.size:
        return None
    slower = float(np.median(b.gpu_ms)) / b.fastest_ms - 1
    return slower, {"slower": slower}


def _gpu_clock_drop(b: _Block):
    mhz = {name: getattr(b.after.gpu, name) or 0 for name in b.best}
    drops = {name: 1 - mhz[name] / best for name, best in b.best.items() if mhz[name]}
    if "sm_mhz" not in drops:
        return None
    worst = max(drops, key=drops.get)
    told = {"mhz": mhz[worst], "best_mhz": b.best[worst], "drop": drops[worst]}
    return drops[worst], {"clock": worst.removesuffix("_mhz"), **told}


def _throttle(b: _Block):
    reasons = b.after.gpu.reasons
    power, thermal = (attempt(b.rise, f"{by}_limited_s", "gpu") for by in ("power", "thermal"))
    if reasons is None and power is None and thermal is None:
        return None
    if b.steady_power_cap:  # a condition of the whole run, which is said once
        reasons, power = reasons & ~POWER_CAP, None
    names = [name for bit, name in HARMFUL_REASONS.items() if (reasons or 0) & bit]
    share = min(1.0, max(0.0, ((power or 0.0) + (thermal or 0.0)) / b.rise("at_s")))
    return max(share, float(bool(names))), {"share": share, "reasons": names}


def _cpu_load(b: _Block):
    if (busy_s := b.rise("busy_s")) <= 0:  # we were computing: the sandbox hides its CPUs
        return None
    load = min(1.0, max(0.0, (busy_s - b.rise("own_s")) / (b.process.cpus * b.rise("at_s"))))
    return load, {"share": load, "cpus": b.process.cpus}


def _steal(b: _Block):
    # The measuring thread was on one of these cores; what other cores lost has not delayed it.
    before, after = b.before.host, b.after.host
    stolen = max(after.steal_s[i] - before.steal_s[i] for i in (before.core, after.core))
    share = stolen / b.rise("at_s") if stolen >= STEAL_TICKS_S else 0.0
    return share, {"share": share}


def _preempted(b: _Block):
    times, thread_s = b.rise("preemptions"), b.rise("thread_s")
    lost = max(0.0, 1 - thread_s / b.rise("at_s")) if times >= PREEMPTIONS else 0.0
    return lost, {"share": lost, "times": times}


GPU_RULES = {  # code: what measures it, its limit
    "foreign_gpu_process": (_foreign_gpu_process, TOUCHED),
    "gpu_clock_drop": (_gpu_clock_drop, SLOWER),
    "throttle": (_throttle, TOUCHED),
    "gpu_disturbed": (_gpu_disturbed, TOUCHED),
    "gpu_shift": (_gpu_shift, SLOWER),
}
HOST_RULES = {  # nothing there slows the GPU clock, behind its full queue
    "cpu_load": (_cpu_load, BUSY_CPUS),
    "steal": (_steal, TOUCHED),
    "preempted": (_preempted, TOUCHED),
}
