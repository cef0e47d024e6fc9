"""The rows of the results: columns and types, what a valid row is, and the one CSV form.

UTF-8, commas, dot decimals, one line a row. Numbers are read back the same, a figure that does not
exist is an empty cell, and no cell begins as a spreadsheet's formula does.
"""

import csv
import io
import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

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
CHOICES = {"clock": ("gpu", "host"), "dataset": ("cifar10", "synthetic")}
FORMULA_STARTS = ("=", "+", "-", "@")
_DTYPES = {TEXT: "str", INTEGER: "int64", FIGURE: "float64", OPTIONAL: "float64", TIME: "object"}
_AT_LEAST_ONE = ("run", "batch_size", "measure_iters")
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")  # control characters and line separators


class RowError(ValueError):
    """A row of results lacks a column or holds a value that cannot be right."""


def check_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as it will be read back: plain str, int, float or None, and datetime.

    Raises
    ------
    RowError
        One line that names the column, the value given and what is allowed.
    """
    _check_columns(row)
    checked = {}
    for name, kind in KINDS.items():
        try:
            checked[name] = _CHECKS[kind](name, row[name])
        except (TypeError, ValueError, OverflowError) as error:
            given = f"{repr(row[name])[:80]} ({type(row[name]).__name__})"
            raise RowError(f"column {name}: got {given}, allowed: {error}") from None
    _check_consistency(checked)
    return checked


def _check_columns(names: Iterable[str]) -> None:
    names = list(names)
    missing = ", ".join(name for name in COLUMNS if name not in names)
    unknown = ", ".join(repr(name)[:80] for name in names if name not in KINDS)
    doubled = ", ".join(sorted({str(name) for name in names if names.count(name) > 1}))
    told = {"missing": missing, "unknown": unknown, "there twice": doubled}
    if any(told.values()):
        wrong = "; ".join(f"{what}: {which}" for what, which in told.items() if which)
        raise RowError(f"its columns are not the {len(COLUMNS)} of the results: {wrong}")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str | None):
        raise TypeError("text ('' where there is none)")
    # A process or device name is not ours: what UTF-8 cannot encode becomes a question mark.
    text = _BREAKS.sub(" ", value or "").encode("utf-8", "replace").decode("utf-8")
    if len(text) > 32_000:
        raise ValueError("at most 32000 characters, which a spreadsheet's cell holds")
    if name == "variant" and not text.strip():
        raise ValueError("a name that is not empty")
    if text not in CHOICES.get(name, (text,)):
        raise ValueError("one of " + ", ".join(map(repr, CHOICES[name])))
    return text


def _integer(name: str, value: Any) -> int:
    least = int(name in _AT_LEAST_ONE)
    number = value if hasattr(value, "__index__") and not isinstance(value, bool | np.bool_) else -1
    if not least <= operator.index(number) < 2**63:
        raise ValueError(f"an integer >= {least}")
    return operator.index(number)


def _optional(name: str, value: Any) -> float | None:
    if not isinstance(value, int | float | np.integer | np.floating | None) or value is True:
        raise TypeError("a number, or None where the figure does not exist")
    if value is None or math.isnan(value):
        return None
    most = 1.0 if name == "accuracy" else math.inf
    if isinstance(value, bool) or not 0 <= value <= most or math.isinf(value):
        raise ValueError("a fraction in [0, 1]" if name == "accuracy" else "finite ms >= 0")
    return float(value)


def _figure(name: str, value: Any) -> float:
    number = _optional(name, value)
    if number is None:
        raise ValueError("a finite number of milliseconds")
    return number


def _time(name: str, value: Any) -> datetime:
    allowed = "ISO 8601 with a time zone, such as '2026-11-24T21:40:00+01:00'"
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, datetime) and moment.utcoffset() is not None:
            return datetime.fromisoformat(moment.isoformat())  # a fixed offset, as in the CSV
    except ValueError:  # not ISO 8601, or pandas' NaT
        pass
    raise ValueError(allowed)


_CHECKS = {TEXT: _text, INTEGER: _integer, FIGURE: _figure, OPTIONAL: _optional, TIME: _time}


def _check_consistency(row: dict[str, Any]) -> None:
    """Refuse figures that contradict each other: a slip in building the row, not a measurement."""
    ordered = ("lat_min", "lat_p50", "lat_p95", "lat_max")
    if not row["lat_min"] <= row["lat_p50"] <= row["lat_p95"] <= row["lat_max"]:
        figures = ", ".join(f"{name}={row[name]}" for name in ordered)
        raise RowError(f"{' <= '.join(ordered)} does not hold: {figures}")
    low, high = row["lat_p95_low"], row["lat_p95_high"]
    if (low is None) != (high is None) or (low is not None and low > high):
        raise RowError(f"lat_p95_low={low} and lat_p95_high={high} are no interval")
    for figure in ("mean", "p95"):  # no clock silently stands in for another
        deciding = f"{row['clock']}_{figure}"
        if row[deciding] != row[f"lat_{figure}"]:
            raise RowError(
                f"clock={row['clock']!r} decides, but lat_{figure}={row[f'lat_{figure}']} is not "
                f"{deciding}={row[deciding]}"
            )


def to_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Checked rows as a DataFrame: str, int64, float64 (NaN where empty), datetime objects."""
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    return pd.DataFrame({n: pd.Series(columns[n], dtype=_DTYPES[k]) for n, k in KINDS.items()})


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
        risky = value.startswith("'") or value.lstrip().startswith(FORMULA_STARTS)
        return f"'{value}" if risky else value
    if isinstance(value, datetime):
        return value.isoformat()
    empty = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if empty else repr(value.item() if isinstance(value, np.generic) else value)


def from_csv(text: str) -> list[dict[str, Any]]:
    """Rows of the results from a CSV, by the names of its columns, checked as if they were new.

    Read with `csv`: pandas fills a line that is too short, without a word.

    Raises
    ------
    RowError
        A column lacks or is unknown, or a row is not valid; the message names it.
    """
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        lines = list(reader)  # without the empty ones
    except csv.Error as error:
        raise RowError(f"no CSV ({error})") from None
    _check_columns(reader.fieldnames or ())
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            if None in line or None in line.values():
                raise RowError(f"it has more or fewer cells than the {len(COLUMNS)} columns")
            rows.append(check_row({name: _from_cell(name, line[name]) for name in COLUMNS}))
        except RowError as error:
            raise RowError(f"row {number}: {error}") from None
    return rows


def _from_cell(name: str, cell: str) -> Any:
    kind = KINDS[name]
    if kind == TEXT:
        return cell.removeprefix("'")
    if kind == TIME or not cell:
        return cell or None
    try:
        return int(cell) if kind == INTEGER else float(cell)
    except ValueError:
        return cell  # the check refuses it, and names it
