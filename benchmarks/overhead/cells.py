"""Where the notebook's time goes: seconds per cell of executed notebooks, from papermill's record.

    python -m benchmarks.overhead.cells FILE.json NAME=EXECUTED.ipynb ...

Overhead is what is neither data, nor warm-up and measuring, nor accuracy: everything but the cells
in WORK. The calibration counts as overhead.
"""

import json
import sys
from pathlib import Path

WORK = ("data", "first", "accuracy", "runs")


def cell_seconds(path: Path) -> dict[str, float]:
    """Seconds of each code cell by id."""
    cells = json.loads(path.read_text(encoding="utf8"))["cells"]
    return {
        cell["id"]: round(cell["metadata"]["papermill"]["duration"], 2)
        for cell in cells
        if cell["cell_type"] == "code"
    }


def summarise(seconds: dict[str, float]) -> dict:
    """Total and overhead (s), and the cells that took more than half a second."""
    work = sum(seconds[name] for name in WORK)
    total = sum(seconds.values())
    slow = {name: value for name, value in seconds.items() if value > 0.5}
    return {"total_s": round(total, 1), "overhead_s": round(total - work, 1), "cells_s": slow}


def main() -> None:
    """Write the file and print a line for each notebook."""
    file, *named = sys.argv[1:]
    found = {}
    for name, path in (given.split("=", 1) for given in named):
        found[name] = summarise(cell_seconds(Path(path)))
        print(f"{name}: {found[name]['overhead_s']} s of {found[name]['total_s']} s")
    text = json.dumps(found, indent=1, ensure_ascii=False)
    Path(file).write_text(f"{text}\n", encoding="utf8")


if __name__ == "__main__":
    main()
