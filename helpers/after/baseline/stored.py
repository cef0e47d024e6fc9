"""A stored session as a baseline: its rows, its machine, the median latency of each run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.after.report.session import read_session
from helpers.annex.comparison import CLOCKS
from helpers.results import ResultsError, load_samples, read_results

RESULTS = Path("results")  # where sessions are unless told otherwise
EXAMPLE = "results/2026-11-24T22-56-08-c0da06"


class BaselineError(RuntimeError):
    """There is no session to compare with, or (strict) this one is slower or incomparable."""


@dataclass(frozen=True)
class Stored:
    """What a comparison needs of a session; `device_type` ("cuda", "cpu") is a column of `rows`."""

    name: str
    folder: Path
    rows: pd.DataFrame
    gpu_uuid: str | None
    model: str | None


def finished_session(folder: Path) -> Stored:
    """Read a session that is complete.

    Raises
    ------
    BaselineError
        There is no such folder, or no complete session in it.
    """
    if not folder.is_dir():
        inside = RESULTS / folder
        hint = f", did you mean '{inside}'?" if inside.is_dir() else ""
        raise BaselineError(
            f"baseline={str(folder)!r}: there is no such folder{hint}; give the folder of a "
            f"complete session, such as {EXAMPLE!r}"
        )
    try:
        read_session(folder)
    except ResultsError as error:
        raise BaselineError(
            f"baseline={str(folder)!r} cannot be compared with: {error}; or give the folder of a "
            f"complete session, such as {EXAMPLE!r}"
        ) from None
    return read_stored(folder)


def read_stored(folder: Path) -> Stored:
    """Read a session, complete or not.

    Raises
    ------
    BaselineError
        Its rows or its environment cannot be read.
    """
    try:
        rows = read_results(folder / "results.csv")
        environment = _json(folder / "environment.json")
    except (ResultsError, OSError, ValueError) as error:
        raise BaselineError(f"{folder} holds no session's results: {error}") from None
    rows["device_type"] = rows["device"].str.partition(":")[0]
    written = folder / "parameters.json"
    model = _json(written).get("model") if written.exists() else None
    uuid = (environment.get("gpu") or {}).get("uuid")
    return Stored(folder.resolve().name, folder, rows, uuid, model)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf8"))


def log_medians(session: Stored, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Logarithm of each run's median latency, by clock that all of these runs have.

    Raises
    ------
    BaselineError
        The samples of a run cannot be read.
    """
    try:
        runs = [load_samples(session.folder / f"run_{index + 1}.npz") for index in rows.index]
    except ResultsError as error:
        raise BaselineError(f"session {session.name} lacks samples: {error}") from None
    return {
        clock: np.log([np.median(run[f"{clock}_ms"]) for run in runs])
        for clock in CLOCKS
        if all(f"{clock}_ms" in run for run in runs)
    }
