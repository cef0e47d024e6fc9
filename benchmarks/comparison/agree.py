"""Do comparisons made one after the other agree, and would those of a single process have?

    python -m benchmarks.comparison.agree FILE …    # of `benchmarks.comparison.sittings`

All intervals are 95 % for all variants of a comparison together (Bonferroni).
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from scipy.stats import gmean

from benchmarks.common import load, share
from helpers.annex.comparison import CONTROL, over_processes
from helpers.stats import replicate_interval

Intervals = dict[str, tuple[float, float]]


def published(processes: list[dict], clock: str) -> Intervals:
    """The intervals of a comparison, as the annex makes them: over its processes."""
    ratios = [of_rounds(process, clock) for process in processes]
    names = dict.fromkeys(name for found in ratios for name in found)
    values = {name: [found[name] for found in ratios if name in found] for name in names}
    return {name: (r.low, r.high) for name, r in over_processes(values).items()}


def of_rounds(process: dict, clock: str) -> dict[str, float]:
    """A process's ratios, as the annex makes them of its rounds."""
    return {name: float(gmean(ratios)) for name, ratios in process["rounds"][clock].items()}


def of_one_process(process: dict, clock: str) -> Intervals:
    """What one process alone would claim: Student's t over its rounds."""
    rounds = process["rounds"][clock]
    alpha = 0.05 / max(len(rounds.keys() - {CONTROL}), 1)
    return {name: replicate_interval(values, 1 - alpha) for name, values in rounds.items()}


def level(sittings: Iterable[list[dict]], clock: str, name: str) -> float:
    """Grand mean: the geometric mean of a ratio over all these sittings' processes."""
    ratios = [of_rounds(p, clock) for processes in sittings for p in processes]
    return float(gmean([found[name] for found in ratios if name in found]))


def judge(sittings: list[list[dict]], clock: str) -> dict[str, list[bool]]:
    """By question, an answer for every case; `sittings` hold the processes of each."""
    held, alone, control = [], [], []
    for i, processes in enumerate(sittings):
        found = published(processes, clock)
        others = sittings[:i] + sittings[i + 1 :]
        for name in (found.keys() - {CONTROL}) if others else ():
            elsewhere = level(others, clock, name)
            held.append(found[name][0] <= elsewhere <= found[name][1])
            ends = [of_one_process(p, clock).get(name) for p in processes]
            alone += [low <= elsewhere <= high for low, high in filter(None, ends)]
        if CONTROL in found:
            control.append(found[CONTROL][0] <= 1 <= found[CONTROL][1])
    return {
        "an interval holds the others' grand mean": held,
        "an interval of one process does": alone,
        "the A/A control's interval holds 1": control,
    }


def read(files: Iterable[Path]) -> list[list[dict]]:
    """The processes of each sitting that has three or more of them."""
    found = [load(file)["processes"] for file in files]
    return [processes for processes in found if len(processes) >= 3]


def main() -> None:
    """Print the answers."""
    sittings = read(map(Path, sys.argv[1:]))
    for clock in sittings[0][0]["rounds"]:
        for question, answers in judge(sittings, clock).items():
            print(f"{clock}: {question}: {share(sum(answers), len(answers))}")


if __name__ == "__main__":
    main()
