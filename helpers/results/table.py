"""The rows of the results: their columns and types, what a valid row is, and their CSV form.

The CSV is UTF-8 with commas, dot decimals and one line per row. Numbers are written so that
reading them gives the same ones, and a figure that does not exist is an empty cell. A text that a
spreadsheet would take for a formula gets an apostrophe in front, which reading takes away again.
"""

import csv
import io
import math
import operator
import re
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

TEXT, INTEGER, FIGURE, OPTIONAL, TIME = "text", "integer", "figure", "optional figure", "time"

# The columns in order; figures are latencies in ms, but for accuracy, a fraction in [0, 1].
KINDS: dict[str, str] = {
    "variant": TEXT,
    "accuracy": OPTIONAL,
    "lat_mean": FIGURE,
    "lat_p95": FIGURE,
    "timestamp": TIME,
    "run": INTEGER,
    "clock": TEXT,
    "lat_std": FIGURE,
    "lat_min": FIGURE,
    "lat_max": FIGURE,
    "lat_p50": FIGURE,
    "lat_p95_low": OPTIONAL,
    "lat_p95_high": OPTIONAL,
    "host_mean": OPTIONAL,
    "host_p95": OPTIONAL,
    "gpu_mean": OPTIONAL,
    "gpu_p95": OPTIONAL,
    "precision": TEXT,
    "batch_size": INTEGER,
    "input_shape": TEXT,
    "warmup_iters": INTEGER,
    "warmup_used": INTEGER,
    "measure_iters": INTEGER,
    "schedule": TEXT,
    "retried_batches": INTEGER,
    "device": TEXT,
    "gpu_name": TEXT,
    "torch_version": TEXT,
    "cuda_version": TEXT,
    "dataset": TEXT,
    "eval_images": INTEGER,
    "session": TEXT,
    "flags": TEXT,
}
COLUMNS: tuple[str, ...] = tuple(KINDS)
CHOICES = {"clock": ("gpu", "host"), "dataset": ("cifar10", "synthetic")}
FORMULA_STARTS = ("=", "+", "-", "@")
LONGEST_TEXT = 32_000  # a spreadsheet's cell holds 32,767 characters
LARGEST_INTEGER = 2**63 - 1  # int64, the type of a DataFrame's integer column

_DTYPES = {TEXT: "str", INTEGER: "int64", FIGURE: "float64", OPTIONAL: "float64", TIME: "object"}
_HEADER = ",".join(COLUMNS)
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")  # control characters and line separators


class RowError(ValueError):
    """A row of results lacks a column or holds a value that cannot be right."""


def check_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as it will be read back: plain str, int, float or None, and datetime.

    Texts are kept on one line (control characters become a space); None is the same as "" there.
    A NaN in an optional figure is the same as None. A timestamp is a datetime or ISO 8601 text.

    Raises
    ------
    RowError
        One line that names the column, the value given and what is allowed.
    """
    missing = ", ".join(name for name in COLUMNS if name not in row) or "none"
    unknown = ", ".join(str(name) for name in row if name not in KINDS) or "none"
    if len(row) != len(COLUMNS) or missing != "none":
        raise RowError(f"the row's columns are wrong: missing {missing}; unknown {unknown}")
    checked = {name: _CHECKS[kind](name, row[name]) for name, kind in KINDS.items()}
    _check_consistency(checked)
    return checked


def _check_text(name: str, value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise _refusal(name, value, "text ('' where there is none)")
    # A process or device name is not ours: what UTF-8 cannot encode becomes a question mark.
    text = _BREAKS.sub(" ", value or "").encode("utf-8", "replace").decode("utf-8")
    if len(text) > LONGEST_TEXT:
        raise _refusal(name, value, f"at most {LONGEST_TEXT} characters, not {len(text)}")
    if name == "variant" and not text.strip():
        raise _refusal(name, value, "a name that is not empty")
    if name in CHOICES and text not in CHOICES[name]:
        raise _refusal(name, value, "one of " + ", ".join(map(repr, CHOICES[name])))
    return text


def _check_integer(name: str, value: Any) -> int:
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    least = 1 if name in ("run", "batch_size", "measure_iters") else 0
    if number is None or not least <= number <= LARGEST_INTEGER:
        raise _refusal(name, value, f"an integer >= {least}")
    return number


def _check_figure(name: str, value: Any) -> float:
    number = _check_optional(name, value)
    if number is None:
        raise _refusal(name, value, "a finite number of milliseconds")
    return number


def _check_optional(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise _refusal(name, value, "a number, or None where the figure does not exist")
    number = float(value)
    if math.isnan(number):
        return None
    most = 1.0 if name == "accuracy" else math.inf
    if not 0 <= number <= most or math.isinf(number):
        allowed = "a fraction in [0, 1]" if name == "accuracy" else "milliseconds, finite and >= 0"
        raise _refusal(name, value, allowed)
    return number


def _check_time(name: str, value: Any) -> datetime:
    allowed = "ISO 8601 with a time zone, such as '2026-11-24T21:40:00+01:00'"
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        has_zone = isinstance(moment, datetime) and moment.utcoffset() is not None
    except ValueError:  # not ISO 8601, or pandas' NaT
        has_zone = False
    if not has_zone:
        raise _refusal(name, value, allowed)
    return datetime.fromisoformat(moment.isoformat())  # a fixed offset, which is what a CSV keeps


_CHECKS = {
    TEXT: _check_text,
    INTEGER: _check_integer,
    FIGURE: _check_figure,
    OPTIONAL: _check_optional,
    TIME: _check_time,
}


def _check_consistency(row: dict[str, Any]) -> None:
    """Refuse figures that contradict each other: a slip in building the row, not a measurement."""
    if not row["lat_min"] <= row["lat_p50"] <= row["lat_p95"] <= row["lat_max"]:
        figures = ", ".join(f"{n}={row[n]}" for n in ("lat_min", "lat_p50", "lat_p95", "lat_max"))
        raise RowError(f"lat_min <= lat_p50 <= lat_p95 <= lat_max does not hold: {figures}")
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


def _refusal(name: str, value: Any, allowed: str) -> RowError:
    given = f"{_short(value)} ({type(value).__name__})"
    return RowError(f"column {name}: got {given}, allowed: {allowed}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def to_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Checked rows as a DataFrame: str, int64, float64 (NaN where empty), datetime objects."""
    return pd.DataFrame(
        {
            name: pd.Series([row[name] for row in rows], dtype=_DTYPES[kind])
            for name, kind in KINDS.items()
        }
    )


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Checked rows as the text of the CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_to_cell(row[name]) for name in COLUMNS] for row in rows)
    return text.getvalue()


def from_csv(text: str) -> list[dict[str, Any]]:
    """Rows from the text of a CSV, checked as if they were new.

    Raises
    ------
    RowError
        If the header is another one or a row is not valid; the message names the row.
    """
    try:
        header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True) if text else [[]]
    except csv.Error as error:
        raise RowError(f"no CSV ({error})") from None
    if tuple(header) != COLUMNS:
        raise RowError(f"its first line is {_short(','.join(header))}, not {_short(_HEADER)}")
    rows = []
    for number, cells in enumerate(lines, start=1):
        try:
            if len(cells) != len(COLUMNS):
                raise RowError(f"{len(cells)} cells instead of {len(COLUMNS)}")
            named = zip(COLUMNS, cells, strict=True)
            rows.append(check_row({name: _from_cell(name, cell) for name, cell in named}))
        except RowError as error:
            raise RowError(f"row {number}: {error}") from None
    return rows


def _to_cell(value: Any) -> str:
    if isinstance(value, str):
        risky = value.startswith("'") or value.lstrip().startswith(FORMULA_STARTS)
        return f"'{value}" if risky else value
    if isinstance(value, datetime):
        return value.isoformat()
    return "" if value is None else repr(value)


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
