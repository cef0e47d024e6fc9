"""Sessions land whole or not at all, and one table holds them all, digit for digit."""

import csv
import errno
import json
import subprocess
import sys

import pytest

from helpers.after.campaign import merge as campaign_merge
from helpers.after.campaign.merge import (
    ADDED,
    claimed,
    is_finished,
    land,
    merged,
    write_failures,
    write_table,
)
from helpers.after.campaign.session import FACTS, ROOT
from helpers.results import COLUMNS, ResultsError, read_results
from helpers.results import files as results_files
from tests.campaign.stand_in import environment, write_session


def facts(session, **changes):
    values = {
        **{"campaign": "c", "session": session, "set": 1, "repetition": 1},
        **{"parameters": {"seed": 0}, "host": "node1", "machine": "boot1"},
        **{"started_s": 0.0, "finished_s": 60.0},
    }
    return values | changes


def files_of(tmp_path, session, p95=(1.31, 1.32), env=None, row=None, **changes):
    """A session's files, as a worker sends them."""
    elsewhere = tmp_path / "worker" / "results"
    folder = write_session(elsewhere, session, p95, env, **(row or {}))
    (folder / FACTS).write_text(json.dumps(facts(session, **changes)))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def campaign(tmp_path):
    folder = tmp_path / "campaign_c"
    with claimed(folder):
        yield folder


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_a_session_lands_as_it_left(tmp_path, campaign):
    files = files_of(tmp_path, "s1")
    assert not is_finished(campaign / "s1")
    land(campaign, "s1", files)
    assert is_finished(campaign / "s1")
    assert {p.name: p.read_bytes() for p in (campaign / "s1").iterdir()} == files
    assert visible(campaign) == ["s1"]


@pytest.mark.parametrize("lost", ["session.json", "results.csv", "verdict.json", FACTS])
def test_an_incomplete_session_never_lands(tmp_path, campaign, lost):
    files = files_of(tmp_path, "s1")
    del files[lost]
    with pytest.raises(ResultsError):
        land(campaign, "s1", files)
    assert visible(campaign) == []
    assert not list(campaign.glob(".*.tmp"))


def test_a_session_that_is_still_running_never_lands(tmp_path, campaign):
    files = files_of(tmp_path, "s1")
    files["session.json"] = files["session.json"].replace(b"complete", b"running")
    with pytest.raises(ResultsError, match="running"):
        land(campaign, "s1", files)
    assert visible(campaign) == []


def test_a_session_of_another_name_never_lands(tmp_path, campaign):
    with pytest.raises(ResultsError, match="holds session s2, not s1"):
        land(campaign, "s1", files_of(tmp_path, "s2"))


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ""])
def test_no_file_lands_outside_its_folder(tmp_path, campaign, name):
    with pytest.raises(ResultsError, match="outside its folder"):
        land(campaign, "s1", {**files_of(tmp_path, "s1"), name: b""})
    assert visible(campaign) == []


def test_a_full_disk_leaves_nothing_behind_and_the_session_may_land_later(
    tmp_path, campaign, monkeypatch
):
    files, whole = files_of(tmp_path, "s1"), results_files.os.replace

    def full(source, target):
        if str(target).endswith("verdict.json"):
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(source, target)

    monkeypatch.setattr(results_files.os, "replace", full)
    with pytest.raises(ResultsError, match="No space left on device; free some disk space"):
        land(campaign, "s1", files)
    monkeypatch.undo()
    assert visible(campaign) == []
    land(campaign, "s1", files)
    assert is_finished(campaign / "s1")


def test_what_stands_unfinished_under_the_name_is_put_aside_not_lost(tmp_path, campaign):
    (campaign / "s1").mkdir()
    (campaign / "s1" / "kept.txt").write_text("mine")
    assert not is_finished(campaign / "s1")
    land(campaign, "s1", files_of(tmp_path, "s1"))
    (aside,) = campaign.glob(".s1.*.unfinished")
    assert (aside / "kept.txt").read_text() == "mine"


def test_one_process_at_a_time_and_what_a_killed_one_left_is_cleared(tmp_path):
    folder = tmp_path / "campaign_c"
    with claimed(folder):
        (folder / ".s1.abcd.tmp").mkdir()
        code = (
            "import sys; from pathlib import Path\n"
            "from helpers.after.campaign.merge import claimed\n"
            f"with claimed(Path({str(folder)!r})): pass"
        )
        other = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        assert "another process is running this campaign" in other.stderr
        assert (folder / ".s1.abcd.tmp").exists()
    with claimed(folder):
        assert not list(folder.glob(".*.tmp"))


def test_the_table_has_host_gpu_and_versions_then_the_sessions_own_cells(tmp_path, campaign):
    gpu = environment(
        gpu={"uuid": "GPU-1"}, cuda={"driver": "580.1", "cudnn": "9.19"}, git={"commit": "=x"}
    )
    land(campaign, "s1", files_of(tmp_path, "s1", (1 / 3, 1.32), gpu))
    land(campaign, "s2", files_of(tmp_path, "s2", (1.33,), started_s=100.0, finished_s=160.0))
    rows = merged(campaign, ["s1", "s2", "s3"])  # s3 is not there yet
    path = write_table(campaign, rows)
    with open(path, encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == (*ADDED, *COLUMNS)
    assert [(line[header.index("session")], line[header.index("run")]) for line in lines] == [
        ("s1", "1"),
        ("s1", "2"),
        ("s2", "1"),
    ]
    first = dict(zip(header, lines[0], strict=True))
    told = {name: first[name] for name in ("host", "gpu_uuid", "driver", "cudnn", "torchvision")}
    assert told == {
        **{"host": "node1", "gpu_uuid": "GPU-1", "driver": "580.1", "cudnn": "9.19"},
        "torchvision": "0.26.0",
    }
    assert first["commit"] == "'=x"  # no spreadsheet takes it for a formula
    own = read_results(campaign / "s1" / "results.csv")
    assert float(first["lat_p95"]) == own["lat_p95"][0] == 1 / 3
    assert json.loads(first["parameters"]) == {"seed": 0}


def test_host_shared_is_told_of_sessions_that_overlap_on_one_machine(tmp_path, campaign):
    times = {  # session: (machine, from, to)
        "long": ("a", 0, 100),
        "inside": ("a", 10, 20),
        "later": ("a", 50, 60),  # overlaps the first one, not the one before it
        "after": ("a", 100, 110),
        "elsewhere": ("b", 0, 100),
    }
    for name, (machine, start, end) in times.items():
        files = files_of(tmp_path, name, machine=machine, started_s=start, finished_s=end)
        land(campaign, name, files)
    shared = {row["session"] for row in merged(campaign, times) if row["host_shared"]}
    assert shared == {"long", "inside", "later"}


def test_failures_are_listed(campaign):
    path = write_failures(campaign, {"s2": "RuntimeError: no GPU", "s1": "é"})
    assert json.loads(path.read_text(encoding="utf8")) == [
        {"session": "s1", "error": "é"},
        {"session": "s2", "error": "RuntimeError: no GPU"},
    ]


def test_the_table_is_written_in_one_step(tmp_path, campaign, monkeypatch):
    land(campaign, "s1", files_of(tmp_path, "s1"))
    rows, written = merged(campaign, ["s1"]), []
    monkeypatch.setattr(campaign_merge, "write_file", lambda path, _: written.append(path.name))
    write_table(campaign, rows)
    assert written == [campaign_merge.TABLE]
