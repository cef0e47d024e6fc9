"""Step 5: the session folder and the results CSV; the only module that writes results.

A session keeps each run as soon as it is measured, in its own folder. A complete session of J1's
own parameters replaces `results_j1_validation.csv`; nothing else does. Every file is at any moment
the old one or the new one, whole. A session's folder holds:

    results.csv        one row per run; why a figure is doubted: `flags`
    run_<k>.npz        raw samples (ms) of the k-th row, the warm-up's and rejected ones too
    runs.json          of each of the day's runs: its process, what was seen, the looks themselves;
                       what was seen: the tags of each block, with their figures and limits
    verdict.json       the verdict's sentences, outcome and clocks, calibration and profile
    session.json       when it was opened and completed; "running" until then
    parameters.json    environment.json    model.json    what measured, and what was measured
    variants.json      comparaison.md      what the annex admitted and refused, and its table
    pauses.json        every forward after a pause, where any was asked for
    cost.json          seconds since the session was opened, the notebook's peak memory
    *.png              the figures
    *.ipynb            the executed notebook, where `make benchmark` or a campaign left it
"""

import io
import json
import os
import secrets
import time
from dataclasses import is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.bench_latency import Run
from helpers.environment import Machine
from helpers.parameters import Parameters
from helpers.results.files import ResultsError as ResultsError
from helpers.results.files import StoredSession as StoredSession
from helpers.results.files import explained, write_file
from helpers.results.files import read_results as read_results
from helpers.results.files import read_session as read_session
from helpers.results.table import COLUMNS as COLUMNS
from helpers.results.table import csv_text, from_csv, judged, now, run_row
from helpers.validation import Verdict

PUBLISHED = "results_j1_validation.csv"
CONSECUTIVE = "consecutive"  # the schedule of the day's own runs
# Parameters that a session may change and still be J1's own: they change no figure of its runs.
FREE = {"device", "dataset", "data_dir", "results_dir", "session", "eval_images", "variants"}
FREE |= {"compare_processes", "pauses_ms", "baseline", "max_regression", "strict"}


class Session:
    """One session's folder in `parameters.results_dir`, by default named after date and time.

    `runs`: the day's own, in their order. Raises ResultsError, before anything is measured, where
    the folder holds results already or cannot be written, and where the published CSV is not ours.
    """

    def __init__(self, parameters: Parameters, machine: Machine):
        named = f"{datetime.now():%Y-%m-%dT%H-%M-%S}-{secrets.token_hex(3)}"
        self.name = parameters.session or named
        self.folder = Path(parameters.results_dir) / self.name
        self.parameters, self.environment = parameters, machine.facts
        self.runs: tuple[Run, ...] = ()
        self._rows: list[dict[str, Any]] = []
        self.opened_s = time.monotonic()
        self._state = {"session": self.name, "started": now(), "finished": None, "state": "running"}
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            # papermill's notebook may be there, and what a killed write left: hidden
            held = [p.name for p in self.folder.glob("[!.]*") if p.suffix != ".ipynb"]
        if held:
            raise ResultsError(f"{self.folder} already holds results ({min(held)}): name another")
        self._to_publish()
        self.keep("session", self._state)
        self.keep("environment", machine.facts)
        self.keep("parameters", parameters)

    @property
    def rows(self) -> pd.DataFrame:
        """The rows so far, with the types and values that `read_results` gives."""
        return from_csv(csv_text(self._rows))

    def done(self) -> int:
        """How many of the day's own runs are measured; ResultsError if the others never will be."""
        if len(self.runs) < self.parameters.runs:
            self.check_open()
        return len(self.runs)

    def check_open(self) -> None:
        """Raise ResultsError, before a run is measured in vain, where the session is complete."""
        if self._state["finished"]:
            raise ResultsError(f"session {self.name!r} is complete: open a new one for more runs")

    def add_run(
        self, run: Run, *, dataset: str, accuracy, number=0, receipt=None, profile=None, **entry
    ) -> Path:
        """Keep a run's row in results.csv and its samples in run_<k>.npz, whose path is returned.

        `accuracy`: an Accuracy or None. `number`: of the run, by default the day's next. `entry`:
        the row's variant, precision and schedule, where they are not the day's. `receipt` and
        `profile`: see `flags_of`. Raises ResultsError where the session is complete or a file
        cannot be written; the rows before are untouched, and the same call may be tried again.
        """
        self.check_open()
        day = {"variant": "fp32", "precision": run.precision, "schedule": CONSECUTIVE}
        row = run_row(run, self, receipt, profile) | day | entry
        row |= {"run": number or len(self.runs) + 1, "dataset": dataset, "session": self.name}
        row |= {"accuracy": accuracy and accuracy.fraction}
        row |= {"eval_images": accuracy.images if accuracy else 0}
        rows = [*self._rows, row]
        path = write_file(self.folder / f"run_{len(rows)}.npz", _packed(run))
        write_file(self.folder / "results.csv", csv_text(rows).encode())
        self._rows = rows  # only now, so that what cannot be written is not believed either
        self.runs += (run,) * (row["schedule"] == CONSECUTIVE)
        return path

    def keep(self, name: str, thing: Any, verdict: Verdict | None = None) -> Any:
        """Write a figure as <name>.png, a text as <name>.md, anything else as <name>.json.

        A figure's label (alternative text) becomes the description in the PNG. JSON takes
        dataclasses, paths, sets and arrays too, but no NaN. Returns `thing`, to be shown.
        ResultsError, and nothing is written, where `verdict`, which it is about, has other runs.
        """
        self._check_runs(verdict)
        if hasattr(thing, "savefig"):
            png = io.BytesIO()
            thing.savefig(png, format="png", metadata={"Description": thing.get_label()})
            write_file(self.folder / f"{name}.png", png.getvalue())
            return thing
        ending, text = "md", thing
        if not isinstance(thing, str):
            told = {"indent": 2, "ensure_ascii": False, "allow_nan": False, "default": _plain}
            ending, text = "json", f"{json.dumps(thing, **told)}\n"
        # What UTF-8 cannot encode, as in the name of a process, ends no session.
        write_file(self.folder / f"{name}.{ending}", text.encode("utf-8", "replace"))
        return thing

    def complete(self, verdict: Verdict | None = None) -> Path:
        """Mark the session complete; its rows then tell what `verdict` says of them.

        Returns the published CSV, replaced if the session has J1's own parameters, else its own.
        May be called again. ResultsError: no runs, those of another verdict, no room to write.
        """
        if not self._rows:
            raise ResultsError(f"session {self.name!r} has no runs: nothing is published")
        own, published = self.folder / "results.csv", self._to_publish()
        self._check_runs(verdict)
        if verdict is not None:
            own_rows = [row for row in self._rows if row["schedule"] == CONSECUTIVE]
            for row, run, flags in zip(own_rows, verdict.runs, verdict.flags, strict=True):
                row |= judged(run, verdict.deciding, flags)  # as the verdict has it
            self._rows = [row | {"accepted": verdict.outcome} for row in self._rows]
            write_file(own, csv_text(self._rows).encode())
        # In this order: what is published always comes from a session marked complete.
        self._state = self.keep("session", self._state | {"finished": now(), "state": "complete"})
        return write_file(published, csv_text(self._rows).encode()) if published else own

    def _check_runs(self, verdict: Verdict | None) -> None:
        if verdict is not None and verdict.runs != self.runs:  # a cell before it was run again
            raise ResultsError(
                "the verdict is of other runs: run again all cells from the session's on"
            )

    def _to_publish(self) -> Path | None:
        """The CSV that `complete` replaces, never a file of others; None if this is not J1's."""
        own = vars(Parameters()).items()
        if not {name for name, value in own if getattr(self.parameters, name) != value} <= FREE:
            return None
        if os.path.lexists(path := self.folder.parent / PUBLISHED):
            read_results(path)
        return path


def _packed(run: Run) -> bytes:
    """Every raw sample of a run in ms: measured, warm-up, and rejected but kept; as an .npz."""
    packed, samples = io.BytesIO(), {"rejected_gpu_ms": run.rejected_gpu_ms}
    for name in ("host", "gpu", "graph", "warmup"):
        if (values := getattr(getattr(run, name), "samples_ms", None)) is not None:
            samples[f"{name}_ms"] = values
    np.savez_compressed(packed, allow_pickle=False, **samples)
    return packed.getvalue()


def _plain(thing: Any) -> Any:
    """What JSON knows, of what it does not know."""
    if is_dataclass(thing):
        return vars(thing)
    if isinstance(thing, np.ndarray | np.generic):
        return thing.tolist()
    return sorted(thing) if isinstance(thing, set | frozenset) else os.fspath(thing)
