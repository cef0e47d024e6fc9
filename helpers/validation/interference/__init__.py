"""Who else was there: looks between blocks of samples, tags on blocks, nothing averaged away.

A `Watch` looks before, between and after blocks, never while a sample is timed. Two looks and the
samples between them make one `Observation`. Tagged samples are kept: figures of all samples and of
the untagged ones stand side by side. Some tags are read off the GPU samples themselves, so the
untagged figures are a diagnosis and must not replace the others.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import psutil
import torch

from helpers.bench_latency import BLOCK, LatencyResult
from helpers.display.french import percent
from helpers.environment.readings import (
    Snapshot,
    nvml_handle,
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
from helpers.validation.interference.rules import GPU_RULES, HOST_ONLY, HOST_RULES, TOUCHED

MOST_NAMED = 6  # blocks named one by one in a sentence; beyond that, the range and the number


@dataclass(frozen=True)
class Observation:
    """What was seen around one block of samples; None: not observable.

    `start_s`, `end_s`: the block, in seconds since the run's first look. Clocks (MHz), temperature
    (°C) and power (W) are read at its end. `foreign_sm`: share of the SMs (0 to 1) that other
    processes used; `idle_foreigners`: others with a context that used none. `values`: what each
    rule measured, tagged or not; `unseen`: what cannot be observed here (French).
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


class Watch:
    """Looks at the GPU and the CPU when told to; pass `between_blocks=watch.look`.

    One watch serves all runs of a session: `observations` after each run hands out that run's
    blocks and forgets its looks, but remembers the clocks at their best.
    """

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self._handle, self._own = nvml_handle(self.device), own_pids()
        self._cpus, self._last_seen = psutil.cpu_count() or 1, 0
        self._looks: list[Snapshot] = []
        self._best = {"sm_mhz": None, "memory_mhz": None, "cpu_mhz": None}
        self.read()  # NVML hands out its whole buffer once: what happened before the watch

    def look(self) -> None:
        """Take one look, to be called before, between and after blocks of samples."""
        self._looks.append(self.read())

    def forget(self) -> None:
        """Drop the looks of a run that was interrupted."""
        self._looks = []

    def read(self) -> Snapshot:
        """Take one look without keeping it."""
        start = time.perf_counter()
        gpu = None
        if self._handle is not None:
            gpu = read_gpu(self._handle, self._new_shares())
        host = read_host(cuda=self.device.type == "cuda" and torch.cuda.is_initialized())
        return Snapshot(start, time.perf_counter(), gpu, host)

    def _new_shares(self) -> tuple | None:
        try:
            shares, self._last_seen = utilisation_samples(self._handle, self._last_seen)
        except Exception:  # not supported, not permitted: not observable
            return None
        return shares

    def observations(self, result: LatencyResult | None = None) -> tuple[Observation, ...]:
        """One observation per block of the run that has just ended.

        Parameters
        ----------
        result
            That run; without it, nothing is read off the samples and the warm-up.

        Raises
        ------
        ValueError
            The looks do not surround the run's blocks.
        """
        return self.interleaved([result])[0]

    def interleaved(
        self, results: Sequence[LatencyResult | None]
    ) -> tuple[tuple[Observation, ...], ...]:
        """The same for runs whose blocks took turns: one tuple of observations per run."""
        looks, self._looks = self._looks, []
        turns, gaps = len(results), list(pairwise(looks))
        for result in results:
            if result is not None and turns * -(-result.host.n // BLOCK) != len(gaps):
                raise ValueError(
                    f"{len(looks)} looks do not surround the blocks of {turns} run(s) of "
                    f"{result.host.n} samples: pass between_blocks=watch.look, and call "
                    "observations after each run"
                )
        self._remember(looks)
        return tuple(
            self._observe(gaps[turn::turns], result, looks) for turn, result in enumerate(results)
        )

    def _remember(self, looks: list[Snapshot]) -> None:
        for name, best in self._best.items():
            readings = [look.host if name == "cpu_mhz" else look.gpu for look in looks]
            seen = [best, *(getattr(reading, name, None) for reading in readings)]
            self._best[name] = max((value for value in seen if value is not None), default=None)

    def _observe(self, gaps, result, looks) -> tuple[Observation, ...]:
        gpu_ms = _blocks_of(result)
        medians = [float(np.median(block)) for block in gpu_ms]
        context = {
            "levels": Levels(**self._best, gpu_block_ms=min(medians, default=None)),
            "sampled": any(look.gpu and look.gpu.shares for look in looks),
            "warmup_used": None if result is None else result.warmup_used,
        }
        return tuple(
            self._observation(
                block,
                self._evidence(
                    *(before, after, looks),
                    first=block == 0,
                    gpu_ms=gpu_ms[block] if gpu_ms else None,
                    **context,
                ),
                looks[0].start_s,
            )
            for block, (before, after) in enumerate(gaps)
        )

    def _evidence(self, before: Snapshot, after: Snapshot, looks, **context) -> Evidence:
        listed = [look.gpu.processes for look in looks if look.gpu and look.gpu.processes]
        listed = frozenset().union(*listed)
        return Evidence(before, after, own=self._own, listed=listed, cpus=self._cpus, **context)

    def busy_with(self, before: Snapshot, after: Snapshot) -> tuple[str, ...]:
        """What others did between two looks while we did nothing (French phrases)."""
        evidence = self._evidence(before, after, [before, after])
        quiet_rules = {"foreign_gpu_process": GPU_RULES["foreign_gpu_process"]}
        quiet_rules["cpu_load"] = HOST_RULES["cpu_load"]
        _, tags, _ = apply_rules(evidence, quiet_rules)
        busy = [tag.phrase for tag in tags]
        if after.gpu and (after.gpu.utilisation or 0) >= 100 * TOUCHED:
            busy.append(f"GPU occupé à {percent(after.gpu.utilisation / 100)}")
        return tuple(busy)

    def _observation(self, block: int, evidence: Evidence, origin_s: float) -> Observation:
        gpu, who = evidence.after.gpu, (evidence.own, evidence.listed)
        rules = (GPU_RULES | HOST_RULES) if self.device.type == "cuda" else HOST_RULES
        values, tags, unseen = apply_rules(evidence, rules)
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
            idle_foreigners=idle_foreigners(gpu, *who) if gpu else 0,
            look_ms=1e3 * (evidence.after.end_s - evidence.after.start_s),
            values=values,
            tags=tags,
            unseen=unseen,
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
    return told


def _enumerate(blocks: Sequence[int]) -> str:
    """Block numbers in words that do not grow with their number."""
    if len(blocks) <= MOST_NAMED:
        return ", ".join(map(str, blocks))
    return f"{blocks[0]} à {blocks[-1]}, {len(blocks)} en tout,"


def not_observable(observations: Sequence[Observation]) -> tuple[str, ...]:
    """What could not be seen here (French), each once: it is not thereby clean."""
    return tuple(dict.fromkeys(what for o in observations for what in o.unseen))
