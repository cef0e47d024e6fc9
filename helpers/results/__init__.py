"""Step 5: the session folder and the results CSV; the only module that writes results.

A session keeps each run as soon as it is measured, in its own folder; `results_j1_validation.csv`
is replaced when the session is complete, and only then. Every file is at any moment the old one or
the new one, whole.
"""

import io
import json
import os
import re
import secrets
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.results.files import ResultsError, explained, locked, write_file
from helpers.results.stored import StoredSession, load_samples, read_results, read_session
from helpers.results.table import COLUMNS, RowError, check_row, csv_text, to_frame

__all__ = [
    "COLUMNS",
    "PUBLISHED",
    "ResultsError",
    "Session",
    "StoredSession",
    "csv_text",
    "load_samples",
    "open_session",
    "read_results",
    "read_session",
]

PUBLISHED = "results_j1_validation.csv"
SCHEMA = 1  # of session.json and of the columns
RUNNING, COMPLETE = "running", "complete"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ARRAY_NAME = re.compile(r"(?!file$|allow_pickle$)[a-z][a-z0-9_]*")  # savez's own arguments
_SAME_RUN = ("variant", "precision", "batch_size", "schedule", "run")


def open_session(results_dir: str | Path, name: str = "") -> "Session":
    """Start a session in `results_dir`, created if missing; by default named after date and time.

    The session's folder may exist and hold a notebook, which papermill writes there as it goes.

    Raises
    ------
    ResultsError
        If the name is no plain name or already holds results, the folder cannot be written, or
        the published CSV is not one that `complete` may replace: before any measurement.
    """
    folder = Path(results_dir)
    name = name or f"{datetime.now():%Y-%m-%dT%H-%M-%S}-{secrets.token_hex(3)}"
    _check_name("session", name, reserved=PUBLISHED)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        for left in folder.glob(f".{PUBLISHED}.*.tmp"):  # by a session killed while publishing
            left.unlink()
        _check_published(folder / PUBLISHED)
        with explained(folder / name):
            (folder / name).mkdir(exist_ok=True)
            taken = [p.name for p in (folder / name).iterdir() if not _is_notebook(p)]
        if taken:
            raise ResultsError(
                f"session {name!r} already holds results in {folder / name} "
                f"({', '.join(sorted(taken)[:3])}): choose another name (`make benchmark "
                "SESSION=NAME`, or `-p session NAME` with papermill), or leave it out"
            )
        return Session(folder / name)


def _is_notebook(path: Path) -> bool:
    """The executed notebook, or something hidden: a checkpoint, or what a killed write left."""
    return path.suffix == ".ipynb" or path.name.startswith(".")


class Session:
    """One session's folder: rows and raw samples, environment, figures; made by `open_session`.

    `session.json` says "running" until `complete`; a session that was killed says so forever.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.name = folder.name
        self._rows: list[dict[str, Any]] = []
        self._state = {
            "schema": SCHEMA,
            "session": self.name,
            "pid": os.getpid(),
            "started": _now(),
            "finished": None,
        }
        self._write_state(state=RUNNING)

    @property
    def rows(self) -> pd.DataFrame:
        """The rows so far, with the types and values that `read_results` gives."""
        return to_frame(self._rows)

    def add_run(self, row: dict[str, Any], samples: dict[str, np.ndarray]) -> Path:
        """Keep one run: its row in results.csv and its raw samples in run_<k>.npz, k from 1.

        Parameters
        ----------
        row
            Exactly the COLUMNS; see `results.table.check_row`.
        samples
            Arrays of numbers by name, such as {"host_ms": (n,), "warmup_ms": (w,)}.

        Returns
        -------
        Path
            of the samples; `load_samples` reads them.

        Raises
        ------
        ResultsError
            If the row or the samples are not valid or already there, or cannot be written; the
            rows before are untouched and the same call may be tried again.
        """
        if self._state["state"] == COMPLETE:
            raise ResultsError(f"session {self.name!r} is complete: open a new one for more runs")
        try:
            checked = check_row(row)
        except RowError as error:
            raise ResultsError(f"this run cannot be kept: {error}") from None
        if checked["session"] != self.name:
            raise ResultsError(f"the row names session {checked['session']!r}, not {self.name!r}")
        same = {name: checked[name] for name in _SAME_RUN}
        if any(same == {name: kept[name] for name in _SAME_RUN} for kept in self._rows):
            raise ResultsError(
                f"session {self.name!r} already has this run ({same}): open a new session to "
                "measure it again"
            )
        path = self.folder / f"run_{len(self._rows) + 1}.npz"
        write_file(path, _packed(samples))
        rows = [*self._rows, checked]
        write_file(self.folder / "results.csv", csv_text(rows).encode())
        self._rows = rows
        return path

    def save_environment(self, environment: dict[str, Any]) -> Path:
        """Write environment.json."""
        return self.save_json("environment", environment)

    def save_json(self, name: str, content: Any) -> Path:
        """Write <name>.json; NaN is refused, since JSON has none."""
        _check_name("file", name, reserved="session")
        try:
            text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ResultsError(f"{name}.json cannot be written: {error}") from None
        return write_file(self.folder / f"{name}.json", f"{text}\n".encode())

    def save_text(self, name: str, text: str) -> Path:
        """Write a table to paste, as <name>: a file name that ends in .md or .html."""
        _check_name("text", name)
        if not name.endswith((".md", ".html")):
            raise ResultsError(f"text name {name!r} is not allowed: it must end in .md or .html")
        return write_file(self.folder / name, text.encode())

    def save_figure(self, figure, name: str) -> Path:
        """Write a matplotlib figure as <name>.png, its label (alt text) as PNG description."""
        _check_name("figure", name)
        png = io.BytesIO()
        figure.savefig(png, format="png", metadata={"Description": figure.get_label()})
        return write_file(self.folder / f"{name}.png", png.getvalue())

    def complete(self) -> Path:
        """Mark the session complete and replace the published CSV by its rows.

        May be called again, as after a full disk. Returns the path of the published CSV.

        Raises
        ------
        ResultsError
            If there are no rows, or the published CSV cannot be replaced.
        """
        if not self._rows:
            raise ResultsError(f"session {self.name!r} has no runs: nothing is published")
        published = self.folder.parent / PUBLISHED
        with locked(self.folder.parent):
            _check_published(published)
            # In this order: what is published always comes from a session marked complete.
            self._write_state(state=COMPLETE, finished=self._state["finished"] or _now())
            return write_file(published, csv_text(self._rows).encode())

    def _write_state(self, **changes: str) -> None:
        state = {**self._state, **changes}
        text = json.dumps(state, indent=2)
        write_file(self.folder / "session.json", f"{text}\n".encode())
        self._state = state  # only now, so that what cannot be written is not believed either


def _check_name(what: str, name: str, reserved: str = "") -> None:
    """Refuse what is not one plain path component."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == reserved:
        raise ResultsError(
            f"{what} name {name!r} is not allowed: at most 100 letters, digits, '.', '_' and '-', "
            "beginning with a letter or a digit" + (f", and not {reserved!r}" if reserved else "")
        )


def _check_published(path: Path) -> None:
    """Refuse to replace what is not a results CSV, since `complete` would destroy it."""
    if not os.path.lexists(path):
        return
    try:
        read_results(path)
    except ResultsError as error:
        raise ResultsError(f"{error}. It is not replaced: move it away, then run again") from None


def _packed(samples: dict[str, np.ndarray]) -> bytes:
    """Samples as the bytes of a compressed .npz file."""
    arrays = {name: np.asarray(values) for name, values in samples.items()}
    for name, array in arrays.items():
        if not _ARRAY_NAME.fullmatch(name) or array.dtype.kind not in "biuf":
            raise ResultsError(
                f"samples {name!r} ({array.dtype}) cannot be kept: an array of numbers is needed, "
                "under a name of lower-case letters, digits and '_'"
            )
    if not arrays:
        raise ResultsError("a run is kept with its raw samples, but none were given")
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
