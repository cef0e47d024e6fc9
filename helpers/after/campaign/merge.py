"""The folder of a campaign: sessions land there whole or not at all; one table holds them all.

    campaign_<id>/<session>/      each as a single session leaves it, and campaign.json
    campaign_<id>/campaign.csv    one row per run: where and with what, then the session's columns
    campaign_<id>/failures.json   what could not be measured, and why

What is being written has a name with a leading dot, which nothing here reads.
"""

import csv
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import filelock

from helpers.after.campaign.session import FACTS
from helpers.after.report.session import read_session
from helpers.results import COLUMNS, ResultsError
from helpers.results.files import explained, write_file
from helpers.results.table import FORMULA_STARTS

TABLE, FAILURES = "campaign.csv", "failures.json"
ADDED = (  # before the columns of a session
    *("campaign", "set", "repetition", "host", "machine", "gpu_uuid", "driver", "cpu"),
    *("python", "torchvision", "cudnn", "torch_threads", "commit"),
    *("started_s", "finished_s", "host_shared", "accepted", "parameters"),
)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a campaign's folder, created if missing, and clear what a killed campaign left there.

    Raises
    ------
    ResultsError
        Another process holds it, or it cannot be written.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".campaign.lock")
    with explained(folder):
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


def is_finished(folder: Path) -> bool:
    """Whether a campaign's session is there, complete and readable, under its own name."""
    try:
        _read(folder)
    except ResultsError:
        return False
    return True


def land(campaign: Path, session: str, files: dict[str, bytes]) -> Path:
    """Bring a session's files in: all of them, checked, synced to the disk, or none.

    Raises
    ------
    ResultsError
        They are no complete session of this name, or cannot be written.
    """
    temporary, final = campaign / f".{session}.{secrets.token_hex(4)}.tmp", campaign / session
    try:
        with explained(temporary):
            for name, content in files.items():
                path = temporary / _inside(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_file(path, content)
        _read(temporary, session)
        with explained(final):
            if final.exists():  # not finished, or it would not have been measured again
                final.rename(campaign / f".{session}.{secrets.token_hex(4)}.unfinished")
            temporary.rename(final)
            _sync(campaign)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def merged(campaign: Path, sessions: Iterable[str]) -> list[dict[str, Any]]:
    """One row per run of the finished sessions: ADDED, then COLUMNS as `read_results` gives them.

    `host_shared` says that another of these sessions was measured on the same machine meanwhile.
    """
    found = []
    for name in sessions:
        with suppress(ResultsError):  # not finished yet
            found.append(_read(campaign / name))
    shared = _sharing([facts for facts, _ in found])
    return [
        {**_added(session, facts, facts["session"] in shared), **row}
        for facts, session in found
        for row in session.rows.to_dict("records")
    ]


def write_table(campaign: Path, rows: list[dict[str, Any]]) -> Path:
    """Write campaign.csv; the cells are those of the sessions' own CSV, digit for digit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*ADDED, *COLUMNS))
    cells = {
        name: _cells_of(campaign / name / "results.csv")
        for name in {row["session"]: None for row in rows}
    }
    for row in rows:
        writer.writerow([*(_cell(row[name]) for name in ADDED), *next(cells[row["session"]])])
    return write_file(campaign / TABLE, text.getvalue().encode())


def write_failures(campaign: Path, failures: dict[str, str]) -> Path:
    """Write failures.json, [] if there are none; a session listed there is tried again."""
    listed = [{"session": name, "error": error} for name, error in sorted(failures.items())]
    text = json.dumps(listed, indent=2, ensure_ascii=False)
    return write_file(campaign / FAILURES, f"{text}\n".encode())


def _read(folder: Path, name: str = ""):
    """A session's campaign.json and the session itself, checked against each other."""
    name, session = name or folder.name, read_session(folder)
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf8"))
        facts["accepted"] = json.loads((folder / "verdict.json").read_text())["accepted"]
        named = {facts["session"], *session.rows["session"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{folder} is no session of a campaign ({error})") from None
    if named != {name}:
        raise ResultsError(f"{folder} holds session {', '.join(sorted(named))}, not {name}")
    return facts, session


def _sharing(facts: list[dict]) -> set[str]:
    """The sessions that overlap in time with another one on the same machine."""
    shared = set()
    last: dict[str, dict] = {}  # per machine, of those begun so far, the one that ends last
    for one in sorted(facts, key=lambda one: one["started_s"]):
        before = last.get(one["machine"])
        if before and one["started_s"] < before["finished_s"]:
            shared |= {one["session"], before["session"]}
        if not before or one["finished_s"] > before["finished_s"]:
            last[one["machine"]] = one
    return shared


def _added(session, facts: dict, shared: bool) -> dict[str, Any]:
    environment = session.environment
    software, cuda, cpu = environment["software"], environment["cuda"], environment["cpu"]
    return {
        **{name: facts[name] for name in ("campaign", "set", "repetition", "host", "machine")},
        "gpu_uuid": (environment["gpu"] or {}).get("uuid") or "",
        "driver": cuda["driver"] or "",
        "cpu": cpu["model"] or "",
        "python": software["python"],
        "torchvision": software["torchvision"],
        "cudnn": cuda["cudnn"] or "",
        "torch_threads": cpu["torch_threads"],
        "commit": environment["git"]["commit"] or "",
        "started_s": facts["started_s"],
        "finished_s": facts["finished_s"],
        "host_shared": shared,
        "accepted": facts["accepted"],
        "parameters": json.dumps(facts["parameters"], sort_keys=True),
    }


def _cells_of(path: Path) -> Iterator[list[str]]:
    rows = csv.reader(io.StringIO(path.read_text(encoding="utf8"), newline=""))
    next(rows)
    return rows


def _cell(value: Any) -> str:
    """A cell that no spreadsheet takes for a formula; a host's name is not ours."""
    text = str(value)
    return f"'{text}" if text.lstrip().startswith((*FORMULA_STARTS, "'")) else text


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise ResultsError(f"a session's file is called {name!r}, which lies outside its folder")
    return path


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
