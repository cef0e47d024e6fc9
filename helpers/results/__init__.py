"""Step 5: the session folder and the results CSV; the only module that writes results.

A session keeps each run as soon as it is measured, in its own folder. A complete session of J1's
own parameters replaces `results_j1_validation.csv`; nothing else does. Every file is at any moment
the old one or the new one, whole.
"""

import io
import json
import os
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
from helpers.results.files import ResultsError as ResultsError
from helpers.results.files import StoredSession as StoredSession
from helpers.results.files import explained, write_file
from helpers.results.files import load_samples as load_samples
from helpers.results.files import read_results as read_results
from helpers.results.files import read_session as read_session
from helpers.results.table import COLUMNS as COLUMNS
from helpers.results.table import csv_text, from_csv, judged, now, run_row
from helpers.validation import Verdict

PUBLISHED = "results_j1_validation.csv"
CONSECUTIVE = "consecutive"  # the schedule of the day's own runs
# Parameters that a session may change and still be J1's own: they change no figure of its runs.
FREE = {"device", "dataset", "data_dir", "results_dir", "session", "eval_images", "variants"}
FREE |= {"compare_processes", "baseline", "max_regression", "strict"}


class Session:
    """One session's folder in `parameters.results_dir`, by default named after date and time.

    `runs`: the day's own, in their order. `session.json` says "running" until `complete`. Raises
    ResultsError, before anything is measured, where the folder holds results already or cannot be
    written, and where the published CSV is not one that `complete` may replace.
    """

    def __init__(self, parameters: Parameters, machine: Machine):
        named = f"{datetime.now():%Y-%m-%dT%H-%M-%S}-{secrets.token_hex(3)}"
        self.name = parameters.session or named
        self.folder = Path(parameters.results_dir) / self.name
        self.parameters, self.environment = parameters, machine.facts
        self.runs: tuple[Run, ...] = ()
        self._rows: list[dict[str, Any]] = []
        self._started, self._complete = now(), False
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            # papermill's notebook may be there, and what a killed write left: hidden
            held = [p.name for p in self.folder.glob("[!.]*") if p.suffix != ".ipynb"]
        if held:
            raise ResultsError(f"{self.folder} already holds results ({min(held)}): name another")
        self._to_publish()
        self._write_state("running")
        self.keep("environment", machine.facts)
        self.keep("parameters", parameters)

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
        number: int = 0,
        receipt: CalibrationReceipt | None = None,
        profile: ForwardProfile | None = None,
    ) -> Path:
        """Keep one run: its row in results.csv and its raw samples in run_<k>.npz, whose path is
        returned.

        `precision`: of the row, if it is not the run's. `number`: of the run, by default the next
        of its variant, precision and schedule. `receipt` and `profile` may raise some of
        the row's `flags`. Raises ResultsError where the session is complete or a file cannot be
        written; the rows before are untouched, and the same call may be tried again.
        """
        if self._complete:
            raise ResultsError(f"session {self.name!r} is complete: open a new one for more runs")
        entry = {"variant": variant, "precision": precision or run.precision, "schedule": schedule}
        rank = 1 + sum(entry.items() <= row.items() for row in self._rows)
        told = entry | {"run": number or rank}
        told |= {"dataset": dataset, "session": self.name}
        told |= {"accuracy": accuracy and accuracy.fraction}
        told |= {"eval_images": accuracy.images if accuracy else 0}
        rows = [*self._rows, run_row(run, self, receipt, profile) | told]
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
        if hasattr(thing, "savefig"):
            png = io.BytesIO()
            thing.savefig(png, format="png", metadata={"Description": thing.get_label()})
            write_file(self.folder / f"{name}.png", png.getvalue())
            return thing
        text, ending = (thing, "md") if isinstance(thing, str) else (_json(thing), "json")
        # What UTF-8 cannot encode, as in the name of a process, ends no session.
        write_file(self.folder / f"{name}.{ending}", text.encode("utf-8", "replace"))
        return thing

    def complete(self, verdict: Verdict | None = None) -> Path:
        """Mark the session complete; the rows tell the verdict's outcome in `accepted`.

        Returns the published CSV, replaced if the session has J1's own parameters, else the
        session's own. May be called again, as after a full disk. Raises ResultsError if there are
        no runs or a file cannot be written.
        """
        if not self._rows:
            raise ResultsError(f"session {self.name!r} has no runs: nothing is published")
        own, published = self.folder / "results.csv", self._to_publish()
        if verdict is not None:
            own_rows = [row for row in self._rows if row["schedule"] == CONSECUTIVE]
            for row, run, flags in zip(own_rows, verdict.runs, verdict.flags, strict=True):
                row |= judged(run, verdict.deciding, flags)  # as the verdict has it
            self._rows = [row | {"accepted": verdict.outcome} for row in self._rows]
            write_file(own, csv_text(self._rows).encode())
        # In this order: what is published always comes from a session marked complete.
        self._write_state("complete", finished=now())
        self._complete = True
        return write_file(published, csv_text(self._rows).encode()) if published else own

    def _write_state(self, state: str, finished: str | None = None) -> None:
        told = {"schema": 1, "session": self.name, "pid": os.getpid(), "started": self._started}
        self.keep("session", told | {"finished": finished, "state": state})

    def _to_publish(self) -> Path | None:
        """The CSV that `complete` replaces, never a file of others; None if this is not J1's."""
        changed = asdict(self.parameters).items() - asdict(Parameters()).items()
        if not dict(changed).keys() <= FREE:
            return None
        if os.path.lexists(path := self.folder.parent / PUBLISHED):
            read_results(path)
        return path


open_session = Session


def _packed(run: Run) -> bytes:
    """Every raw sample of a run in ms: measured, warm-up, and rejected but kept; as an .npz."""
    clocks = {"host_ms": run.host, "gpu_ms": run.gpu, "graph_ms": run.graph}
    samples = {name: getattr(clock, "samples_ms", None) for name, clock in clocks.items()}
    samples |= {"warmup_ms": run.warmup.samples_ms, "rejected_gpu_ms": run.rejected_gpu_ms}
    samples = {name: values for name, values in samples.items() if values is not None}
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **samples)
    return packed.getvalue()


def _json(thing: Any) -> str:
    return f"{json.dumps(thing, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)}\n"


def _plain(thing: Any) -> Any:
    """What JSON knows, of what it does not know."""
    if is_dataclass(thing):
        return {field.name: getattr(thing, field.name) for field in fields(thing)}
    if isinstance(thing, np.ndarray | np.generic):
        return thing.tolist()
    return sorted(thing) if isinstance(thing, set | frozenset) else os.fspath(thing)
