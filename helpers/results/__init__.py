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
from dataclasses import asdict, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.bench_latency import Run
from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.profiling import ForwardProfile
from helpers.environment import Machine
from helpers.models.accuracy import Accuracy
from helpers.parameters import Parameters
from helpers.results.files import (
    ResultsError,
    StoredSession,
    explained,
    load_samples,
    read_results,
    read_session,
    write_file,
)
from helpers.results.table import COLUMNS, csv_text, from_csv, now, run_row

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
CONSECUTIVE = "consecutive"  # the schedule of the day's own runs


def open_session(parameters: Parameters, machine: Machine) -> "Session":
    """Start a session in `parameters.results_dir`, by default named after date and time.

    Its folder may exist and hold a notebook, which papermill writes there as it goes. Raises
    ResultsError where it holds results already or cannot be written, and where the published CSV is
    not one that `complete` may replace: before any measurement.
    """
    name = parameters.session or f"{datetime.now():%Y-%m-%dT%H-%M-%S}-{secrets.token_hex(3)}"
    folder = Path(parameters.results_dir) / name
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # papermill's notebook, and what is hidden: a checkpoint, or what a killed write left
        names = {p.name for p in folder.iterdir() if p.suffix != ".ipynb" and p.name[0] != "."}
    _check_published(folder.parent / PUBLISHED)
    if names:
        raise ResultsError(
            f"session {name!r} already holds results ({', '.join(sorted(names)[:3])}): give it "
            "another name, or none"
        )
    session = Session(folder, parameters, machine.facts)
    session.keep("environment", machine.facts)
    session.keep("parameters", asdict(parameters))
    return session


class Session:
    """One session's folder: rows and raw samples, environment, figures; made by `open_session`.

    `runs`: the day's own, in their order. `session.json` says "running" until `complete`; a session
    that was killed says so forever.
    """

    def __init__(self, folder: Path, parameters: Parameters, facts: dict[str, Any]):
        self.folder, self.name = folder, folder.name
        self.parameters, self.environment = parameters, facts
        self.runs: tuple[Run, ...] = ()
        self._rows: list[dict[str, Any]] = []
        self._started, self._complete = now(), False
        self._write_state("running")

    @property
    def rows(self) -> pd.DataFrame:
        """The rows so far, with the types and values that `read_results` gives."""
        return from_csv(csv_text(self._rows))

    def add_run(
        self,
        run: Run,
        *,
        dataset: str,
        accuracy: Accuracy | None,
        variant: str = "fp32",
        precision: str = "",
        schedule: str = CONSECUTIVE,
        receipt: CalibrationReceipt | None = None,
        profile: ForwardProfile | None = None,
    ) -> Path:
        """Keep one run: its row in results.csv and its raw samples in run_<k>.npz, k from 1.

        `precision`: of the row, if it is not the run's, as of a variant that computes in FP16 under
        the switches of strict FP32. `receipt` and `profile` may speak against the figures, as may
        the run itself and the tags of its blocks: the row's `flags`. Returns the samples' path.

        Raises ResultsError where the session is complete or a file cannot be written; the rows
        before are untouched, and the same call may be tried again.
        """
        if self._complete:
            raise ResultsError(f"session {self.name!r} is complete: open a new one for more runs")
        entry = {"variant": variant, "precision": precision or run.precision, "schedule": schedule}
        told = entry | {"run": 1 + sum(entry.items() <= row.items() for row in self._rows)}
        told |= {"dataset": dataset, "session": self.name}
        told |= {"accuracy": accuracy and accuracy.fraction}
        told |= {"eval_images": accuracy.images if accuracy else 0}
        row = run_row(run, self.runs, self.parameters, self.environment, receipt, profile)
        rows = [*self._rows, row | told]
        path = write_file(self.folder / f"run_{len(rows)}.npz", _packed(run))
        write_file(self.folder / "results.csv", csv_text(rows).encode())
        self._rows = rows  # only now, so that what cannot be written is not believed either
        self.runs += (run,) * (schedule == CONSECUTIVE)
        return path

    def keep(self, name: str, thing: Any) -> Any:
        """Write a figure as <name>.png, a text as <name>.md, anything else as <name>.json.

        A figure's label (alternative text) becomes the description in the PNG. JSON takes
        dataclasses, paths, sets and arrays too, but no NaN. Returns `thing`, to be shown.
        """
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or name == "session":
            raise ResultsError(f"{name!r} is no name under which a session keeps anything")
        if hasattr(thing, "savefig"):
            png = io.BytesIO()
            thing.savefig(png, format="png", metadata={"Description": thing.get_label()})
            write_file(self.folder / f"{name}.png", png.getvalue())
            return thing
        text, ending = thing, "md"
        if not isinstance(thing, str):
            text = json.dumps(thing, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
            text, ending = f"{text}\n", "json"
        # What UTF-8 cannot encode, as in the name of a process, ends no session.
        write_file(self.folder / f"{name}.{ending}", text.encode("utf-8", "replace"))
        return thing

    def complete(self) -> Path:
        """Mark the session complete and replace the published CSV, whose path is returned.

        May be called again, as after a full disk. Raises ResultsError if there are no runs, or the
        published CSV cannot be replaced.
        """
        if not self._rows:
            raise ResultsError(f"session {self.name!r} has no runs: nothing is published")
        _check_published(published := self.folder.parent / PUBLISHED)
        # In this order: what is published always comes from a session marked complete.
        self._write_state("complete", finished=now())
        self._complete = True
        return write_file(published, csv_text(self._rows).encode())

    def _write_state(self, state: str, finished: str | None = None) -> None:
        told = {"schema": 1, "session": self.name, "pid": os.getpid(), "started": self._started}
        text = json.dumps(told | {"finished": finished, "state": state}, indent=2)
        write_file(self.folder / "session.json", f"{text}\n".encode())


def _check_published(path: Path) -> None:
    """Refuse to replace what is not a results CSV, since `complete` would destroy it."""
    if os.path.lexists(path):
        try:
            read_results(path)
        except ResultsError as error:
            raise ResultsError(
                f"{error}. It is not replaced: move it away, then run again"
            ) from None


def _packed(run: Run) -> bytes:
    """Every raw sample of a run in ms: measured, warm-up, and rejected but kept; as an .npz."""
    samples = {"host_ms": run.host.samples_ms, "warmup_ms": run.warmup.samples_ms}
    if run.gpu is not None:
        samples["gpu_ms"] = run.gpu.samples_ms
    if run.gpu is not None or run.rejected_gpu_ms.size:
        samples["rejected_gpu_ms"] = run.rejected_gpu_ms
    if run.graph is not None and run.graph.samples_ms is not None:
        samples["graph_ms"] = run.graph.samples_ms
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **samples)
    return packed.getvalue()


def _plain(thing: Any) -> Any:
    """What JSON knows, of what it does not know."""
    if is_dataclass(thing):
        return {field.name: getattr(thing, field.name) for field in fields(thing)}
    if isinstance(thing, np.ndarray | np.generic):
        return thing.tolist()
    return sorted(thing) if isinstance(thing, set | frozenset) else os.fspath(thing)
