"""The folder of a campaign: sessions land there whole or not at all; one table holds them all.

    campaign_<id>/<session>/      each as a single session leaves it, and campaign.json
    campaign_<id>/campaign.csv    one row per run: where and with what, then the session's columns
    campaign_<id>/failures.json   what could not be measured or read, and why
    campaign_<id>/comparaison.*   do its devices differ? as a table and a figure

What is being written has a name with a leading dot, which nothing here reads.
"""

import io
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import filelock

from helpers.after.campaign.comparison import Device, compare, comparison_table
from helpers.after.campaign.plot import plot_campaign
from helpers.after.campaign.stored import ADDED, Facts, SessionError, Task, read_finished
from helpers.results import COLUMNS, ResultsError
from helpers.results.files import explained, write_file
from helpers.results.table import csv_text

TABLE, FAILURES = "campaign.csv", "failures.json"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a campaign's folder, created if missing, and clear what a killed campaign left there.

    Raises
    ------
    ResultsError
        Another process holds it, or it cannot be written.
    """
    lock = filelock.FileLock(folder / ".campaign.lock")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ResultsError(
                f"another process is running this campaign into {folder}: wait for it or end it"
            ) from None
    try:
        for left in folder.glob(".*.tmp"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
    finally:
        lock.release()


def land(campaign: Path, task: Task, files: Mapping[str, bytes]) -> Path:
    """Bring a session's files in: all of them, checked, synced to the disk, or none.

    Raises
    ------
    SessionError
        They are no complete session of this task.
    ResultsError
        They cannot be written.
    """
    final = campaign / task.session
    temporary = campaign / f".{task.session}.{secrets.token_hex(4)}.tmp"
    try:
        with explained(temporary):
            for name, content in files.items():
                path = temporary / _inside(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_file(path, content)
        read_finished(temporary, task)
        with explained(final):
            if final.exists():  # not finished, or it would not have been measured again
                final.rename(campaign / f".{task.session}.{secrets.token_hex(4)}.unfinished")
            temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def merged(
    campaign: Path, tasks: Iterable[Task]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """The rows of each finished session, and why each other one that is there is none.

    `host_shared` says that another of these sessions was measured on the same machine meanwhile.
    """
    found, rows, damaged = [], {}, {}
    for task in tasks:
        try:
            if (campaign / task.session).exists():
                facts, rows[task.session] = read_finished(campaign / task.session, task)
                found.append(facts)
        except SessionError as error:
            damaged[task.session] = str(error)
    shared = _sharing(found)
    for name, own in rows.items():
        rows[name] = [{**row, "host_shared": name in shared} for row in own]
    return rows, damaged


def write_tables(
    campaign: Path, rows: list[dict[str, Any]], failures: Mapping[str, str]
) -> list[Device]:
    """Write failures.json ([] if none), campaign.csv and the comparison of the devices.

    The figures of campaign.csv are those of the sessions' own CSV, digit for digit.
    """
    listed = [{"session": name, "error": error} for name, error in sorted(failures.items())]
    text = json.dumps(listed, indent=2, ensure_ascii=False)
    write_file(campaign / FAILURES, f"{text}\n".encode("utf8", "replace"))
    if not rows:
        return []
    write_file(campaign / TABLE, csv_text(rows, (*ADDED, *COLUMNS)).encode())
    devices, png = compare(rows), io.BytesIO()
    table = comparison_table(devices).reset_index()
    text = csv_text(table.to_dict("records"), list(table))
    write_file(campaign / "comparaison.csv", text.encode())
    figure = plot_campaign(devices)
    figure.savefig(png, format="png", metadata={"Description": figure.get_label()})
    write_file(campaign / "comparaison.png", png.getvalue())
    return devices


def _sharing(facts: list[Facts]) -> set[str]:
    """The sessions that overlap in time with another one on the same machine."""
    shared = set()
    last: dict[str, Facts] = {}  # per machine, of those begun so far, the one that ends last
    for one in sorted(facts, key=lambda one: one.started_s):
        before = last.get(one.machine)
        if before and one.started_s < before.finished_s:
            shared |= {one.session, before.session}
        if not before or one.finished_s > before.finished_s:
            last[one.machine] = one
    return shared


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise SessionError(f"a session's file is called {name!r}, which lies outside its folder")
    return path
