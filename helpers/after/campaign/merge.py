"""The folder of a campaign: sessions land there whole or not at all; one table holds them all.

    campaign_<id>/<session>/      each as a single session leaves it, and campaign.json
    campaign_<id>/campaign.csv    one row per run: where and with what, then the session's columns
    campaign_<id>/failures.json   what could not be measured or read, and why
    campaign_<id>/comparison.csv  do its devices differ?

What is being written has a name with a leading dot, which nothing here reads.
"""

import json
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from helpers.after.campaign.comparison import compare
from helpers.after.campaign.session import Task, read_finished
from helpers.results.files import ResultsError, write_file
from helpers.results.table import csv_text

TABLE, COMPARISON, FAILURES = "campaign.csv", "comparison.csv", "failures.json"


def land(campaign: Path, task: Task, files: Mapping[str, bytes]) -> None:
    """Bring a session's files in: all of them, checked, synced, or none and a ResultsError."""
    final = campaign / task.session
    temporary = campaign / f".{task.session}.{secrets.token_hex(4)}.tmp"
    try:
        for name, content in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            write_file(temporary / name, content)
        read_finished(temporary, task)
        if final.exists():  # not finished, or it would not have been measured again
            final.rename(temporary.with_suffix(".unfinished"))
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def merged(campaign: Path, tasks: Iterable[Task]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows of all finished sessions, and why each other one that is there is none."""
    rows, damaged = [], {}
    for task in tasks:
        try:
            if (campaign / task.session).exists():
                rows += read_finished(campaign / task.session, task)
        except ResultsError as error:
            damaged[task.session] = str(error)
    return pd.DataFrame(rows, columns=None if rows else ["session"]), damaged


def write_tables(campaign: Path, rows: pd.DataFrame, failures: Mapping[str, str]) -> pd.DataFrame:
    """Write failures.json ([] if none), campaign.csv and comparison.csv, which is returned."""
    listed = [{"session": name, "error": error} for name, error in sorted(failures.items())]
    text = json.dumps(listed, indent=2, ensure_ascii=False)
    write_file(campaign / FAILURES, f"{text}\n".encode("utf8", "replace"))
    table = rows if rows.empty else compare(rows)
    for name, frame in ((TABLE, rows), (COMPARISON, table)):
        write_file(campaign / name, csv_text(frame.to_dict("records"), list(frame)).encode())
    return table
