"""A finished session, read back from its folder for the reports."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.results import ResultsError, read_results

COMPARISON = "comparaison.md"  # written by the notebook's annex


@dataclass(frozen=True)
class FinishedSession:
    """What a report needs: the rows (one per run), the verdict's sentences, the machine.

    `parameters`: the notebook's, as far as an older session wrote them down.
    `comparison`: the annex's table in Markdown, empty if nothing was compared.
    `files`: names of what lies in the folder, hidden files apart.
    """

    folder: Path
    rows: pd.DataFrame
    sentences: tuple[str, ...]
    environment: dict[str, Any]
    parameters: dict[str, Any]
    comparison: str
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        """The session's name, which is its folder's."""
        return self.folder.resolve().name

    @property
    def validation_rows(self) -> pd.DataFrame:
        """The runs that the verdict is about: those of the first row's variant and schedule."""
        keys = ["variant", "schedule"]
        return self.rows[(self.rows[keys] == self.rows[keys].iloc[0]).all(axis=1)]

    @property
    def dataset(self) -> str:
        """Which images were used: "cifar10" or "synthetic"."""
        return self.rows["dataset"].iloc[0]


def read_session(folder: Path) -> FinishedSession:
    """Read a session's folder.

    Raises
    ------
    ResultsError
        The folder holds no complete session.
    """
    try:
        state = _json(folder / "session.json")["state"]
        sentences = tuple(_json(folder / "verdict.json")["sentences"])
        environment = _json(folder / "environment.json")
        written = folder / "parameters.json"
        parameters = dict(_json(written)) if written.exists() else {}
        parameters["train_epochs"] = int(parameters.get("train_epochs", 0))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"{folder} holds no finished session ({error}): go on in JupyterLab if its kernel "
            "still runs, else run a new one"
        ) from None
    if state != "complete":
        raise ResultsError(
            f"session {folder.resolve().name} is {state!r}, not complete: run a new one"
        )
    files = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    rows = read_results(folder / "results.csv")
    table = folder / COMPARISON
    comparison = table.read_text(encoding="utf8") if table.exists() else ""
    return FinishedSession(
        folder, rows, sentences, environment, parameters, comparison, tuple(files)
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf8"))
