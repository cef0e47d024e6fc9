"""Does the interval for a further session hold the next session's figure?

    python -m benchmarks.repeatability.coverage FILE …    # of `benchmarks.repeatability.sessions`

One row per file and clock, over all ordered pairs of its sessions: the pairs share sessions, so the
binomial interval is too narrow.
"""

import sys
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import load, share
from helpers.stats import further_interval, replicate_interval

CLOCKS = ("gpu", "host", "graph")


def level(values: Iterable[float]) -> float:
    """Geometric mean: what `further_interval` is about."""
    return float(np.exp(np.mean(np.log(list(values)))))


def covered(sessions: list[list[float]]) -> tuple[int, int]:
    """How many ordered pairs of sessions, and in how many the first one's interval has the other.

    `sessions`: p95 (ms) of the processes of each.
    """
    hits = 0
    for first, other in permutations(sessions, 2):
        low, high = further_interval(first)
        hits += low <= level(other) <= high
    return hits, len(sessions) * (len(sessions) - 1)


def rows(files: Iterable[Path]) -> list[dict]:
    """A row per file and clock; all shares are fractions."""
    found = []
    for file in files:
        record = load(file)
        for clock in CLOCKS:
            sessions = [
                [r[clock]["p95"] for r in s["runs"] if r[clock]] for s in record["sessions"]
            ]
            if len(sessions) < 2 or min(map(len, sessions)) < 3:
                continue
            levels = np.array([level(one) for one in sessions])
            hits, pairs = covered(sessions)
            logs = [np.log(one) for one in sessions]
            found.append(
                {
                    "file": f"{file.parent.name}/{file.stem}",
                    "gpu": (record["environment"]["gpu"] or {}).get("name", "CPU"),
                    "clock": clock,
                    "sessions": len(sessions),
                    "processes": len(sessions[0]),
                    "level_ms": level(levels),
                    "covered": hits,
                    "pairs": pairs,
                    "furthest": float(np.abs(levels / level(levels) - 1).max()),
                    "sd": float(np.sqrt(np.mean([one.var(ddof=1) for one in logs]))),
                    "half_width": float(
                        np.median([further_interval(s)[1] / level(s) - 1 for s in sessions])
                    ),
                }
            )
    return found


def launch_us(files: Iterable[Path]) -> np.ndarray:
    """Eager minus graph on the GPU clock, in µs per launch, of every process that read both."""
    runs = [run for file in files for one in load(file)["sessions"] for run in one["runs"]]
    return np.array(
        [
            1e3 * (run["gpu"]["mean"] - run["graph"]["mean"]) / run["launches"]
            for run in runs
            if run["gpu"] and run["graph"] and run["launches"]
        ]
    )


def launching(files: Iterable[Path]) -> str:
    """What a launch costs, in words; "" where no graph was read."""
    found = launch_us(files)
    if found.size < 3:
        return ""
    low, high = replicate_interval(found) if found.min() > 0 else (np.nan, np.nan)
    return (
        f"Eager minus graph per launch, {found.size} processes: {found.mean():.3f} µs "
        f"(level {low:.3f} to {high:.3f}), from {found.min():.3f} to {found.max():.3f}"
    )


def main() -> None:
    """Print the table."""
    files = [Path(name) for name in sys.argv[1:]]
    for one in (found := rows(files)):
        one["further interval held"] = share(one.pop("covered"), one.pop("pairs"))
    print(pd.DataFrame(found).to_string(index=False, float_format="{:.5g}".format))
    print(launching(files))


if __name__ == "__main__":
    main()
