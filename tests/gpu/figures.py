"""Draw what `tests.gpu.reference` measured, in one sitting or in several.

    python -m tests.gpu.figures FOLDER [FOLDER …]

Reads each folder's reference.json and writes repeatability.png and side_by_side.png, with their
alt text as PNG description, into the first.
"""

import argparse
import json
from pathlib import Path

from tests.gpu.plots import plot_repeatability, plot_side_by_side


def read_sittings(folders: list[Path]) -> list[tuple[str, dict]]:
    """One (label, figures) per folder; the label says on what it was measured."""
    sittings = []
    for index, folder in enumerate(folders, start=1):
        record = json.loads((folder / "reference.json").read_text(encoding="utf8"))
        gpu = record["environment"]["gpu"]["name"]
        sittings.append((f"séance {index} ({gpu})", record["figures"]))
    return sittings


def main(arguments: list[str] | None = None) -> None:
    """Write both figures and print what they show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    folders = parser.parse_args(arguments).folders
    sittings = read_sittings(folders)
    for plot in (plot_repeatability, plot_side_by_side):
        figure, path = plot(sittings), folders[0] / f"{plot.__name__.removeprefix('plot_')}.png"
        figure.savefig(path, metadata={"Description": figure.get_label()})
        print(f"{path}: {figure.get_label()}")


if __name__ == "__main__":
    main()
