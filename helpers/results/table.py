"""The rows of the results: columns and types, the row of a run, and the one CSV form.

UTF-8, commas, dot decimals, one line a row. Numbers are read back the same, a figure that does not
exist is an empty cell, and no cell begins as a spreadsheet's formula does.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from helpers.bench_latency import Run
from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.profiling import ForwardProfile
from helpers.parameters import Parameters
from helpers.validation import CONTRADICTED, doubt_of
from helpers.validation.causes import interval
from helpers.validation.interference import tags

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
    **{"eval_images": INTEGER, "session": TEXT, "flags": TEXT},
}
COLUMNS: tuple[str, ...] = tuple(KINDS)
CHOICES = {"clock": {"gpu", "host"}, "dataset": {"cifar10", "synthetic"}}
FORMULA_STARTS = ("=", "+", "-", "@")
_DTYPES = {TEXT: "str", INTEGER: "int64", FIGURE: "float64", OPTIONAL: "float64", TIME: "object"}
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")  # control characters and line separators


def run_row(
    run: Run,
    before: Sequence[Run],
    parameters: Parameters,
    facts: dict[str, Any],
    receipt: CalibrationReceipt | None,
    profile: ForwardProfile | None,
) -> dict[str, Any]:
    """What the columns say of a run itself; None where a figure does not exist.

    `lat_*` carry the deciding clock, named in `clock`: the GPU's where the run has one that is
    asked for and not contradicted. `before`: the session's runs so far. `facts`: the machine's.
    """
    doubt, shape = doubt_of(run, profile), "x".join(map(str, run.input_shape))
    host_decides = parameters.clock == "host" or run.gpu is None or doubt == CONTRADICTED
    clock, decisive = ("host", run.host) if host_decides else ("gpu", run.gpu)
    low, high = interval(decisive) or (None, None)
    own = {
        "unsteady_warmup": not run.warmup.steady,
        "conditions_not_met": not run.conditions.required_for(run.precision),
        "gpu_clock_unavailable": run.gpu is None and run.device.startswith("cuda"),
        "retried_batches": run.retried_batches > 0,
    }
    flags = [name for name, raised in own.items() if raised]
    flags += [doubt, *tags([*before, run])[-1].codes, *(receipt.flags if receipt else ())]
    gpu, software, cuda = facts["gpu"], facts["software"], facts["cuda"]
    return {
        **{f"lat_{name}": getattr(decisive, name) for name in ("mean", "p95", "std", "p50")},
        **{"lat_min": decisive.min, "lat_max": decisive.max, "clock": clock},
        **{"lat_p95_low": low, "lat_p95_high": high, "timestamp": now()},
        **{"host_mean": run.host.mean, "host_p95": run.host.p95},
        **{"gpu_mean": run.gpu and run.gpu.mean, "gpu_p95": run.gpu and run.gpu.p95},
        **{"batch_size": run.batch_size, "input_shape": shape, "measure_iters": run.host.n},
        **{"warmup_iters": parameters.warmup_iters, "warmup_used": len(run.warmup.samples_ms)},
        **{"retried_batches": run.retried_batches, "device": run.device},
        **{"gpu_name": gpu and gpu["name"], "torch_version": software["torch"]},
        **{"cuda_version": cuda["torch_cuda"], "flags": ";".join(filter(None, flags))},
    }


def now() -> str:
    """The time with its zone, as ISO 8601."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> str:
    """Rows as the text of a CSV: the only writer, whatever the columns.

    None and NaN are empty, times ISO 8601, and a text that a spreadsheet would take for a formula
    gets an apostrophe in front, which reading takes away again.
    """
    cells = [[_to_cell(row[name]) for name in columns] for row in rows]
    table = pd.DataFrame(cells, columns=list(columns), dtype="object")
    return table.to_csv(index=False, lineterminator="\n")


def _to_cell(value: Any) -> str:
    if isinstance(value, str):
        text = _clean(value)
        risky = text.startswith("'") or text.lstrip().startswith(FORMULA_STARTS)
        return f"'{text}" if risky else text
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
    if sorted(header) != sorted(COLUMNS):
        missing, unknown = set(COLUMNS) - set(header), set(header) - set(COLUMNS)
        raise ValueError(
            f"columns missing: {missing or '-'}, unknown: {unknown or '-'}, or doubled"
        )
    if any(len(line) != len(header) for line in lines):
        raise ValueError("a row has more or fewer cells than there are columns")
    columns = {}
    for name, kind in KINDS.items():
        try:
            cells = [_from_cell(kind, line[header.index(name)]) for line in lines]
            columns[name] = pd.Series(cells, dtype=_DTYPES[kind])
        except (ValueError, OverflowError) as error:
            raise ValueError(f"column {name}: {str(error)[:200]}") from None
        if name in CHOICES and not set(cells) <= CHOICES[name]:
            raise ValueError(f"column {name}: none of {CHOICES[name]}")
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
