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
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from helpers.after.campaign.comparison import compare, plot_campaign
from helpers.after.campaign.session import Task, read_finished
from helpers.results.files import ResultsError, write_file
from helpers.results.table import csv_text

TABLE, FAILURES = "campaign.csv", "failures.json"


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
    """The rows of all finished sessions, and why each other one that is there is none.

    `host_shared` says that another of these sessions was measured on the same machine meanwhile.
    """
    rows, damaged = [], {}
    for task in tasks:
        try:
            if (campaign / task.session).exists():
                rows += read_finished(campaign / task.session, task)
        except ResultsError as error:
            damaged[task.session] = str(error)
    names = None if rows else ["session", "machine", "started_s", "finished_s"]
    table, shared = pd.DataFrame(rows, columns=names), set()
    for _, own in table.drop_duplicates("session").groupby("machine"):
        begins, ends = own["started_s"].to_numpy(), own["finished_s"].to_numpy()
        overlaps = (begins < ends[:, None]) & (ends > begins[:, None])  # each with itself too
        shared |= set(own["session"][overlaps.sum(axis=0) > 1])
    return table.assign(host_shared=table["session"].isin(shared)), damaged


def write_tables(campaign: Path, rows: pd.DataFrame, failures: Mapping[str, str]) -> pd.DataFrame:
    """Write failures.json ([] if none), campaign.csv and the comparison, which is returned."""
    listed = [{"session": name, "error": error} for name, error in sorted(failures.items())]
    text = json.dumps(listed, indent=2, ensure_ascii=False)
    write_file(campaign / FAILURES, f"{text}\n".encode("utf8", "replace"))
    if rows.empty:
        return rows
    devices, png = compare(rows), io.BytesIO()
    table = devices.loc[:, "Réglages":]  # in French
    for name, frame in ((TABLE, rows), ("comparaison.csv", table)):
        write_file(campaign / name, csv_text(frame.to_dict("records"), list(frame)).encode())
    plot_campaign(devices).savefig(png, format="png")
    write_file(campaign / "comparaison.png", png.getvalue())
    return table
