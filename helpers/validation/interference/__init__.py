"""Who else was there: looks between blocks of samples, tags on blocks, nothing averaged away.

A `Watch` looks before, between and after blocks, never while a sample is timed. Two looks and the
samples between them make one `Observation`. Tagged samples are kept: figures of all samples and of
the untagged ones stand side by side. Some tags are read off the GPU samples themselves, so the
untagged figures are a diagnosis and must not replace the others.
"""

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import psutil
import torch

from helpers.bench_latency import BLOCK, LatencyResult
from helpers.environment.facts import Reader, attempt
from helpers.environment.nvml import nvml_handle
from helpers.environment.readings import (
    Snapshot,
    own_pids,
    read_gpu,
    read_host,
    utilisation_samples,
)
from helpers.validation.interference.evidence import (
    Evidence,
    Levels,
    Tag,
    apply_rules,
    foreign_shares,
    idle_foreigners,
)
from helpers.validation.interference.rules import (
    GPU_RULES,
    HOST_ONLY,
    HOST_RULES,
    POWER_CAP,
    SLOWER,
)

MOST_NAMED = 6  # blocks named one by one in a sentence; beyond that, the range and the number
STEADY_POWER_CAP = (
    "limite de puissance du GPU atteinte en permanence, horloge stable : une condition de la "
    "mesure, non une perturbation"
)


@dataclass(frozen=True)
class Observation:
    """What was seen around one block of samples; None: not observable.

    `start_s`, `end_s`: the block, in seconds since the run's first look. Clocks (MHz), temperature
    (°C) and power (W) are read at its end. `foreign_sm`: share of the SMs (0 to 1) that other
    processes used; `idle_foreigners`: others with a context that used none. `values`: what each
    rule measured, tagged or not; `unseen`: what cannot be observed here (French), `failed` the
    readings that raised, with their reasons. `steady_power_cap`: of the whole run, no disturbance.
    """

    block: int
    start_s: float
    end_s: float
    sm_mhz: int | None
    memory_mhz: int | None
    temperature_c: int | None
    power_w: float | None
    foreign_sm: float | None
    foreign_pids: tuple[int, ...]
    idle_foreigners: int
    look_ms: float
    values: dict[str, float]
    tags: tuple[Tag, ...]
    unseen: tuple[str, ...]
    failed: dict[str, str] = field(default_factory=dict)
    steady_power_cap: bool = False


class Watch:
    """Looks at the GPU and the CPU when told to; pass `between_blocks=watch.look`.

    One watch serves all runs of a session: `observations` after each run hands out that run's
    blocks and forgets its looks, but remembers the clocks at their best.
    """

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self._handle, self._own = nvml_handle(self.device), own_pids()
        self._ours = 2 if multiprocessing.parent_process() else 1
        self._cpus, self._last_seen = attempt(psutil.cpu_count) or 1, 0
        self._looks: list[Snapshot] = []
        self._best = {"sm_mhz": None, "memory_mhz": None}
        self.read()  # NVML hands out its whole buffer once: what happened before the watch

    def look(self) -> None:
        """Take one look, to be called before, between and after blocks of samples."""
        self._looks.append(self.read())

    def forget(self) -> None:
        """Drop the looks of a run that was interrupted."""
        self._looks = []

    def read(self) -> Snapshot:
        """Take one look without keeping it; what cannot be read is None and ends nothing."""
        start, gpu, read = time.perf_counter(), None, Reader()
        if self._handle is not None:
            found = read("shares", utilisation_samples, self._handle, self._last_seen)
            shares, self._last_seen = found or (None, self._last_seen)
            gpu = read_gpu(self._handle, shares, read)
        host = read_host(read)
        return Snapshot(start, time.perf_counter(), gpu, host, read.failed)

    def observations(self, result: LatencyResult | None = None) -> tuple[Observation, ...]:
        """One observation per block of the run that has just ended.

        Parameters
        ----------
        result
            That run; without it, nothing is read off the samples.

        Raises
        ------
        ValueError
            The looks do not surround the run's blocks.
        """
        looks, self._looks = self._looks, []
        gaps = list(pairwise(looks))
        if result is not None and -(-result.host.n // BLOCK) != len(gaps):
            raise ValueError(
                f"{len(looks)} looks do not surround the blocks of a run of {result.host.n} "
                "samples: pass between_blocks=watch.look, and call observations after each run"
            )
        for name, best in self._best.items():
            seen = [best, *(getattr(look.gpu, name, None) for look in looks)]
            self._best[name] = max((value for value in seen if value is not None), default=None)
        gpu_ms = _blocks_of(result)
        fastest = min((float(np.median(block)) for block in gpu_ms), default=None)
        listed = [look.gpu.processes for look in looks if look.gpu and look.gpu.processes]
        context = {
            "own": self._own,
            "listed": frozenset().union(*listed),
            "cpus": self._cpus,
            "levels": Levels(**self._best, gpu_block_ms=fastest),
            "sampled": any(look.gpu and look.gpu.shares for look in looks),
            "steady_power_cap": self._is_steadily_capped(looks),
        }
        return tuple(
            self._observation(
                block,
                Evidence(*pair, gpu_ms=gpu_ms[block] if gpu_ms else None, **context),
                looks[0].start_s,
            )
            for block, pair in enumerate(gaps)
        )

    def _is_steadily_capped(self, looks: list[Snapshot]) -> bool:
        """Is the power limit in force at every look, the SM clock staying where it was?"""
        return bool(looks) and all(
            look.gpu
            and (look.gpu.reasons or 0) & POWER_CAP
            and look.gpu.sm_mhz
            and look.gpu.sm_mhz > (1 - SLOWER) * self._best["sm_mhz"]
            for look in looks
        )

    def _observation(self, block: int, evidence: Evidence, origin_s: float) -> Observation:
        gpu, who = evidence.after.gpu, (evidence.own, evidence.listed)
        rules = (GPU_RULES | HOST_RULES) if self.device.type == "cuda" else HOST_RULES
        read = Reader()
        values, tags, unseen = apply_rules(evidence, rules, read)
        foreign = foreign_shares(gpu, *who) if gpu else {}
        return Observation(
            block=block,
            start_s=evidence.before.end_s - origin_s,
            end_s=evidence.after.start_s - origin_s,
            sm_mhz=gpu and gpu.sm_mhz,
            memory_mhz=gpu and gpu.memory_mhz,
            temperature_c=gpu and gpu.temperature_c,
            power_w=gpu and gpu.power_w,
            foreign_sm=values.get("foreign_gpu_process"),
            foreign_pids=tuple(sorted(foreign)),
            idle_foreigners=idle_foreigners(gpu, *who, self._ours) if gpu else 0,
            look_ms=1e3 * (evidence.after.end_s - evidence.after.start_s),
            values=values,
            tags=tags,
            unseen=unseen,
            failed=evidence.before.failed | evidence.after.failed | read.failed,
            steady_power_cap=evidence.steady_power_cap,
        )


def _blocks_of(result: LatencyResult | None) -> list[np.ndarray]:
    samples = np.zeros(0) if result is None or result.gpu is None else result.gpu.samples_ms
    return [samples[i : i + BLOCK] for i in range(0, samples.size, BLOCK)]


def untagged(
    samples_ms: np.ndarray, observations: Sequence[Observation], clock: str, block: int = BLOCK
) -> np.ndarray:
    """Mask (n,) of the samples of a run whose block carries no tag that matters for `clock`.

    A tag about the host alone leaves the "gpu" clock's samples untagged: nothing there slows work
    that is already queued.

    Raises
    ------
    ValueError
        Unknown clock, or observations of another run.
    """
    if clock not in ("host", "gpu"):
        raise ValueError(f"clock={clock!r}: use 'host' or 'gpu'")
    if len(observations) != -(-len(samples_ms) // block):
        raise ValueError(
            f"{len(observations)} observations do not fit {len(samples_ms)} samples in blocks of "
            f"{block}: pass the samples and observations of the same run"
        )
    harmless = HOST_ONLY if clock == "gpu" else frozenset()
    clean = [all(tag.code in harmless for tag in o.tags) for o in observations]
    return np.repeat(np.array(clean, dtype=bool), block)[: len(samples_ms)]


def flags(observations: Sequence[Observation]) -> tuple[str, ...]:
    """Codes of all tags of a run, each once, for the column `flags`."""
    return tuple(dict.fromkeys(tag.code for o in observations for tag in o.tags))


def describe(observations: Sequence[Observation], run: int) -> list[str]:
    """Say in French what was seen during a run, each kind once, at its worst, with its blocks."""
    told = []
    for code in flags(observations):
        found = [(tag, o.block) for o in observations for tag in o.tags if tag.code == code]
        worst = max((tag for tag, _ in found), key=lambda tag: tag.value)
        where = f"bloc {_enumerate([block + 1 for _, block in found])} sur {len(observations)}"
        told.append(f"{worst.phrase} pendant le run {run} ({where})")
    idle = max((o.idle_foreigners for o in observations), default=0)
    if idle:
        told.append(f"{idle} autre(s) processus présent(s) sur le GPU sans calcul, run {run}")
    if any(o.steady_power_cap for o in observations):
        told.append(STEADY_POWER_CAP)
    return told


def _enumerate(blocks: Sequence[int]) -> str:
    """Block numbers in words that do not grow with their number."""
    if len(blocks) <= MOST_NAMED:
        return ", ".join(map(str, blocks))
    return f"{blocks[0]} à {blocks[-1]}, {len(blocks)} en tout,"


def not_observable(observations: Sequence[Observation]) -> tuple[str, ...]:
    """What could not be seen here (French), each once: it is not thereby clean."""
    return tuple(dict.fromkeys(what for o in observations for what in o.unseen))
