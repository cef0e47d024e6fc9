"""What a session found, read back from its folder: `python -m helpers.report results/<session>`."""

import argparse
import json
import sys
from pathlib import Path

from helpers.results import ResultsError, read_results

SHOWN = ["run", "clock", "lat_mean", "lat_p95", "host_p95", "gpu_p95", "accuracy", "flags"]


def session_text(folder: Path) -> str:
    """The table of runs, the verdict and where the files are, as plain text.

    Raises
    ------
    ResultsError
        The folder holds no complete session.
    """
    try:
        state = json.loads((folder / "session.json").read_text(encoding="utf8"))["state"]
        verdict = json.loads((folder / "verdict.json").read_text(encoding="utf8"))["sentences"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{folder} holds no finished session ({error}): run it again") from None
    if state != "complete":
        raise ResultsError(f"session {folder.name} is {state!r}, not complete: run it again")
    rows = read_results(folder / "results.csv")
    files = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    return "\n".join(
        [
            f"Session {folder.name}, jeu de données {rows['dataset'].iloc[0]}, latences en ms",
            rows[SHOWN].to_string(index=False, float_format="%.4f", na_rep="-"),
            "",
            *verdict,
            "",
            f"Fichiers dans {folder} : {', '.join(files)}",
            f"CSV publié : {folder.parent / 'results_j1_validation.csv'}",
        ]
    )


def main() -> None:
    """Print the session named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    try:
        print(session_text(parser.parse_args().folder))
    except ResultsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
