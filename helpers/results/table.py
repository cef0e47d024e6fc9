"""The rows of the results: columns and types, the row of a run, and the one CSV form.

UTF-8, commas, dot decimals, one line a row. Numbers are read back the same, a figure that does not
exist is an empty cell, and no cell begins as a spreadsheet's formula does.
"""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.bench_latency import Run
from helpers.validation import CONTRADICTED, doubt_of
from helpers.validation.causes import interval
from helpers.validation.interference import GPU_RULES, HOST_RULES, RunTags, tags

TEXT, INTEGER, FIGURE, OPTIONAL, TIME = "text", "integer", "figure", "optional figure", "time"
KINDS: dict[str, str] = {  # in the order of the CSV; figures in ms, accuracy in [0, 1]
    **{"variant": TEXT, "accuracy": OPTIONAL, "lat_mean": FIGURE, "lat_p95": FIGURE},
    **{"timestamp": TIME, "run": INTEGER, "clock": TEXT},
    **dict.fromkeys(("lat_std", "lat_min", "lat_max", "lat_p50"), FIGURE),
    **dict.fromkeys(("lat_p95_low", "lat_p95_high", "host_mean", "host_p95"), OPTIONAL),
    **{"gpu_mean": OPTIONAL, "gpu_p95": OPTIONAL, "precision": TEXT, "batch_size": INTEGER},
    **{"input_shape": TEXT, "warmup_iters": INTEGER, "warmup_used": INTEGER},
    **{"measure_iters": INTEGER, "schedule": TEXT, "retried_batches": INTEGER},
    **dict.fromkeys(("device", "gpu_name", "torch_version", "cuda_version", "dataset"), TEXT),
    **{"eval_images": INTEGER, "session": TEXT, "flags": TEXT, "model": TEXT, "accepted": TEXT},
}
COLUMNS: tuple[str, ...] = tuple(KINDS)
LATER = {"model", "accepted"}  # columns that older files lack
CHOICES = {"clock": {"gpu", "host"}, "dataset": {"cifar10", "synthetic", "random", "example"}}
FORMULA_STARTS = ("=", "+", "-", "@")
_DTYPES = {TEXT: "str", INTEGER: "int64", FIGURE: "float64", OPTIONAL: "float64", TIME: "object"}
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")  # control characters and line separators


def run_row(run: Run, session, receipt, profile) -> dict[str, Any]:
    """What the columns say of a run itself; None where a figure does not exist.

    `lat_*` carry the deciding clock, named in `clock`: the GPU's where the run has one that is
    asked for and not contradicted.
    """
    parameters, facts = session.parameters, session.environment
    doubt = doubt_of(run, profile)
    host_decides = parameters.clock == "host" or run.gpu is None or doubt == CONTRADICTED
    flags = [
        "" if run.warmup.steady else "unsteady_warmup",
        "" if run.conditions.required_for(run.precision) else "conditions_not_met",
        "gpu_clock_unavailable" if run.gpu is None and run.device.startswith("cuda") else "",
        "retried_batches" if run.retried_batches else "",
    ]
    flags += [doubt, *tags([*session.runs, run])[-1].codes, *(receipt.flags if receipt else ())]
    return {
        **_deciding(run, "host" if host_decides else "gpu"),
        **{"timestamp": now()},
        **{"host_mean": run.host.mean, "host_p95": run.host.p95},
        **{"gpu_mean": run.gpu and run.gpu.mean, "gpu_p95": run.gpu and run.gpu.p95},
        **{"batch_size": run.batch_size, "input_shape": "x".join(map(str, run.input_shape))},
        **{"warmup_iters": parameters.warmup_iters, "warmup_used": len(run.warmup.samples_ms)},
        **{"measure_iters": run.host.n, "retried_batches": run.retried_batches},
        **{"device": run.device, "gpu_name": facts["gpu"] and facts["gpu"]["name"]},
        **{"torch_version": facts["software"]["torch"]},
        **{"cuda_version": facts["cuda"]["torch_cuda"], "flags": ";".join(filter(None, flags))},
        **{"model": Path(parameters.model).name, "accepted": ""},
    }


def judged(row: Mapping[str, Any], run: Run, seen: RunTags, clock: str) -> dict[str, Any]:
    """What a verdict over all runs changes in a run's row: the deciding clock, the tags."""
    rules = GPU_RULES | HOST_RULES
    flags = [code for code in row["flags"].split(";") if code and code not in rules]
    return {**_deciding(run, clock), "flags": ";".join((*flags, *seen.codes))}


def _deciding(run: Run, clock: str) -> dict[str, Any]:
    found = getattr(run, clock)
    low, high = interval(found) or (None, None)
    names = ("mean", "p95", "std", "p50", "min", "max")
    figures = {f"lat_{name}": getattr(found, name) for name in names}
    return figures | {"clock": clock, "lat_p95_low": low, "lat_p95_high": high}


def now() -> str:
    """The time with its zone, as ISO 8601."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Rows as the text of a CSV, the only writer; columns: those given, else those of the rows."""
    columns = list(columns or [name for name in COLUMNS if not rows or name in rows[0]])
    cells = [[_to_cell(row[name]) for name in columns] for row in rows]
    table = pd.DataFrame(cells, columns=columns, dtype="object")
    return table.to_csv(index=False, lineterminator="\n")


def _to_cell(value: Any) -> str:
    if isinstance(value, str):
        text = _clean(value)  # reading takes the apostrophe away again
        return f"'{text}" if text.lstrip().startswith((*FORMULA_STARTS, "'")) else text
    if isinstance(value, datetime):
        return value.isoformat()
    empty = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if empty else repr(value.item() if isinstance(value, np.generic) else value)


def _clean(text: str) -> str:
    """One line that UTF-8 can encode: the name of a process or of a device is not ours."""
    return _BREAKS.sub(" ", text).encode("utf-8", "replace").decode("utf-8")


def from_csv(text: str) -> pd.DataFrame:
    """Rows from a CSV by column name: str, int64, float64 (NaN where empty), datetime objects.

    Raises ValueError or csv.Error where a column lacks or is unknown, or a cell is not of its kind.
    """
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)  # pandas fills a short line
    header, *lines = [line for line in lines if line] or [[]]
    missing, unknown = set(KINDS) - LATER - set(header), set(header) - set(KINDS)
    if missing or unknown or len(set(header)) < len(header):
        raise ValueError(f"columns missing: {missing}, unknown: {unknown}, or one doubled")
    if any(len(line) != len(header) for line in lines):
        raise ValueError("a row has more or fewer cells than there are columns")
    columns = {}
    for name in filter(header.__contains__, COLUMNS):
        try:
            cells = [_from_cell(KINDS[name], line[header.index(name)]) for line in lines]
            columns[name] = pd.Series(cells, dtype=_DTYPES[KINDS[name]])
            if name in CHOICES and not set(cells) <= CHOICES[name]:
                raise ValueError(f"none of {CHOICES[name]}")
        except (ValueError, OverflowError) as error:
            raise ValueError(f"column {name}: {str(error)[:200]}") from None
    return pd.DataFrame(columns)


def _from_cell(kind: str, cell: str) -> Any:
    if kind == TEXT:
        return _clean(cell).removeprefix("'")
    if kind == TIME:
        if (moment := datetime.fromisoformat(cell)).utcoffset() is None:
            raise ValueError(f"{cell} has no time zone")
        return moment
    if kind == OPTIONAL and not cell:
        return math.nan
    value = int(cell) if kind == INTEGER else float(cell)
    if not 0 <= value < math.inf:
        raise ValueError(f"{cell} is not finite, or below 0")
    return value
