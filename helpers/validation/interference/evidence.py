"""What is known of one block of samples, who else is on the GPU, and how a rule is applied."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from helpers.environment.facts import Reader
from helpers.environment.readings import GpuReading, Snapshot


@dataclass(frozen=True)
class Tag:
    """One thing seen during a block: how much of it, the limit it reached, a French phrase."""

    code: str
    value: float
    limit: float
    phrase: str


@dataclass(frozen=True)
class Levels:
    """The undisturbed levels that blocks are compared with: the best seen; None: not observable."""

    sm_mhz: float | None = None
    memory_mhz: float | None = None
    gpu_block_ms: float | None = None  # median of the fastest block on the GPU clock


@dataclass(frozen=True)
class Evidence:
    """All that is known of one block: the looks around it, its GPU samples, and the context."""

    before: Snapshot
    after: Snapshot
    own: frozenset[int]  # our pids, in every namespace that we know of
    listed: frozenset[int]  # every pid that NVML has listed on this GPU during the run
    cpus: int
    gpu_ms: np.ndarray | None = None  # (samples of the block,) on the GPU clock
    levels: Levels = Levels()
    sampled: bool = True  # NVML gave a process's SM share at least once during the run
    steady_power_cap: bool = False  # all through the run, the clock staying where it was

    @property
    def wall_s(self) -> float:
        return self.after.host.at_s - self.before.host.at_s

    def rise(self, counter: str, of: str = "host") -> float | None:
        """Increase of a counter over the block; None where it is not observable."""
        before, after = (
            getattr(getattr(look, of), counter, None) for look in (self.before, self.after)
        )
        return None if before is None or after is None else after - before


# A rule returns how much (compared with its limit) and a French phrase; None: not observable.
Found = tuple[float, str] | None


@dataclass(frozen=True)
class Rule:
    """Tag a block when `measure` reaches `limit`.

    `label`: how the reader's tables and figures call it; `subject`: what may not be observable.
    """

    limit: float
    label: str
    subject: str
    measure: Callable[[Evidence], Found]


def foreign_shares(
    gpu: GpuReading, own: frozenset[int], listed: frozenset[int]
) -> dict[int, float]:
    """SM share (0 to 1, mean of the samples) of every process that is not ours.

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


def idle_foreigners(
    gpu: GpuReading, own: frozenset[int], listed: frozenset[int], ours: int = 1
) -> int:
    """How many other processes hold a context on the GPU without using its SMs.

    Under pids of another namespace, `ours` of them are us: this process and who spawned it.
    """
    if not gpu.processes:
        return 0
    others = gpu.processes - own - foreign_shares(gpu, own, listed).keys()
    return max(0, len(others) - (0 if gpu.processes & own else ours))


def apply_rules(
    evidence: Evidence, rules: dict[str, Rule], read: Reader | None = None
) -> tuple[dict, tuple, tuple]:
    """Apply rules to a block: ({code: value}, tags, subjects that are not observable)."""
    values, tags, unseen, read = {}, [], [], read or Reader()
    for code, rule in rules.items():
        found = read(code, rule.measure, evidence)  # a reading of an unknown form ends no session
        if found is None:
            unseen.append(rule.subject)
            continue
        value, phrase = float(found[0]), found[1]
        values[code] = value
        if value >= rule.limit:
            tags.append(Tag(code, value, rule.limit, phrase))
    return values, tuple(tags), tuple(dict.fromkeys(unseen))
