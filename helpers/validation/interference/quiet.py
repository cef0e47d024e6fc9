"""A bounded wait for a quiet machine before anything is measured."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from helpers.validation.interference import Watch

QUIET_S = 1.0  # NVML's longest sample period: after this long, our own past work is out of it
POLL_S = 0.25


@dataclass(frozen=True)
class Wait:
    """How a wait for a quiet machine ended: seconds waited, and what still went on (French)."""

    waited_s: float
    quiet: bool
    busy: tuple[str, ...]


def wait_quiet(watch: Watch, limit_s: float, sleep: Callable[[float], None] = time.sleep) -> Wait:
    """Wait until the machine has been quiet for QUIET_S, at most `limit_s`; 0 does not wait.

    Quiet: no other process on the GPU, a GPU that nothing keeps busy (we do nothing meanwhile, so
    hidden processes show), and less than half of the CPUs taken by others.
    """
    start = calm_since = time.perf_counter()
    before, busy, quiet = watch.read(), ("non vérifié",), False
    while not quiet and (waited := time.perf_counter() - start) < limit_s:
        sleep(min(POLL_S, limit_s - waited))
        after = watch.read()
        busy = watch.busy_with(before, after)
        now, before = time.perf_counter(), after
        calm_since = now if busy else calm_since
        quiet = now - calm_since >= QUIET_S
    return Wait(time.perf_counter() - start, quiet, busy)
