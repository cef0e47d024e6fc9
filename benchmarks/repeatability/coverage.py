"""Does the interval for a further session hold the next session's figure?

    python -m benchmarks.repeatability.coverage FILE …    # of `benchmarks.repeatability.sessions`

One row per file and clock, over all ordered pairs of its sessions: the pairs share sessions, so the
binomial interval is too narrow.
"""

import sys
from collections.abc import Iterable, Sequence
from itertools import combinations, permutations, product
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import load, share
from helpers.stats import welch_interval
from helpers.validation import further_p95

CLOCKS = ("gpu", "host", "graph")


def level(values: Iterable[float]) -> float:
    """Geometric mean: what `further_p95` is about."""
    return float(np.exp(np.mean(np.log(list(values)))))


def covered(sessions: list[list[float]], launches: Sequence[float] = ()) -> tuple[int, int]:
    """In how many ordered pairs of sessions the first one's interval has the other, and all pairs.

    `sessions`: p95 (ms) of the processes of each.
    """
    hits = 0
    for first, other in permutations(sessions, 2):
        low, high = further_p95(first, launches)
        hits += low <= level(other) <= high
    return hits, len(sessions) * (len(sessions) - 1)


def told_apart(sessions: list[list[float]]) -> int:
    """How many pairs of sessions, of the same code on one machine, Welch's interval tells apart."""
    found = [welch_interval(*pair)[1:] for pair in combinations(sessions, 2)]
    return sum(not low <= 1 <= high for low, high in found)


def rows(files: Iterable[Path]) -> list[dict]:
    """A row per file and clock; all shares are fractions."""
    found = []
    for file, clock in product(files, CLOCKS):
        record = load(file)
        runs = [[run[clock] for run in one["runs"] if run[clock]] for one in record["sessions"]]
        sessions = [[figures["p95"] for figures in one] for one in runs]
        if len(sessions) < 2 or min(map(len, sessions)) < 3:
            continue
        levels = np.array([level(one) for one in sessions])
        launches = [run["launches"] for one in record["sessions"] for run in one["runs"]]
        hits, pairs = covered(sessions, launches if clock == "gpu" else ())
        alone, _ = covered(sessions)
        found.append(
            {
                "file": f"{file.parent.name}/{file.stem}",
                "gpu": (record["environment"]["gpu"] or {}).get("name", "CPU"),
                "clock": clock,
                "sessions": len(sessions),
                "processes": len(sessions[0]),
                "level_ms": level(levels),
                "covered": hits,
                "alone": alone,
                "told_apart": told_apart(sessions),
                "pairs": pairs,
                "furthest": float(np.abs(levels / level(levels) - 1).max()),
                "sd": float(np.sqrt(np.mean([np.log(one).var(ddof=1) for one in sessions]))),
                "run_s": float(np.median([one["wall_s"] for one in record["sessions"]]))
                / len(sessions[0]),
            }
        )
    return found


def launching(files: Iterable[Path]) -> str:
    """Eager minus graph on the GPU clock over all processes that read both, in words."""
    runs = [run for file in files for one in load(file)["sessions"] for run in one["runs"]]
    found = [
        1e3 * (run["gpu"]["mean"] - run["graph"]["mean"]) / run["launches"]
        for run in runs
        if run["gpu"] and run["graph"] and run["launches"]
    ]
    if not found:
        return "No process read the model as a graph"
    return (
        f"Eager minus graph in {len(found)} processes: {np.mean(found):.3f} µs per launch, "
        f"{min(found):.3f} to {max(found):.3f}"
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
