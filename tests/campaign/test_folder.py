"""Sessions are measured, land whole or not at all, and one table holds them all."""

import csv
import errno
import json
import os
from dataclasses import asdict, replace

import pytest

from helpers.after.campaign import session as campaign_session
from helpers.after.campaign.merge import COMPARISON, FAILURES, TABLE, land, merged, write_tables
from helpers.after.campaign.session import FACTS, Task, code_hash, measure
from helpers.results import COLUMNS, ResultsError, read_results
from helpers.results import files as results_files
from tests.campaign.stand_in import FAILING_SEED, ON_A_CPU, session, write_notebook
from tests.disk_session import MACHINE


def task_of(name, **changes) -> Task:
    values = {"campaign": "c", "set": 1, "repetition": 1, "parameters": {"seed": 0}, "code": "x"}
    return Task(session=name, **values | changes)


def files_of(tmp_path, name, found=ON_A_CPU, levels=(1.31, 1.32), row=None, **facts):
    """A session's files, as a worker sends them."""
    folder = session(tmp_path / "worker", name, levels, found, **(row or {}))
    told = {"host": "node1", "started_s": 0.0, "finished_s": 60.0}
    (folder / FACTS).write_text(json.dumps(asdict(task_of(name)) | told | facts))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def campaign(tmp_path):
    folder = tmp_path / "campaign_c"
    folder.mkdir()
    return folder


def test_a_session_lands_as_it_left_or_not_at_all(tmp_path, campaign, monkeypatch):
    # attack A10: nor does one of other code or of another plan
    for other in ({"code": "y"}, {"campaign": "d"}, {"parameters": {"seed": 1}}):
        with pytest.raises(ResultsError, match=next(iter(other))):
            land(campaign, task_of("s1"), files_of(tmp_path, "s1", **other))
    files = files_of(tmp_path, "s1")
    with pytest.raises(ResultsError):
        land(campaign, task_of("s1"), {n: c for n, c in files.items() if n != FACTS})
    with monkeypatch.context() as full:
        full.setattr(results_files.os, "fsync", lambda _: os.close(-1))
        with pytest.raises(ResultsError, match=os.strerror(errno.EBADF)):
            land(campaign, task_of("s1"), files)
    assert os.listdir(campaign) == []
    land(campaign, task_of("s1"), files)
    assert {p.name: p.read_bytes() for p in (campaign / "s1").iterdir()} == files
    assert os.listdir(campaign) == ["s1"]


def test_the_table_holds_every_run_digit_for_digit(tmp_path, campaign):
    land(campaign, task_of("s1"), files_of(tmp_path, "s1", MACHINE, levels=(1 / 3, 1.5)))
    land(campaign, task_of("s2"), files_of(tmp_path, "s2", levels=(2.5,)))
    rows, damaged = merged(campaign, map(task_of, ("s1", "s2", "s3")))  # s3 is not there yet
    write_tables(campaign, rows, damaged)
    assert json.loads((campaign / FAILURES).read_text()) == []
    with open(campaign / TABLE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["session"], row["run"]) for row in rows] == [("s1", "1"), ("s1", "2"), ("s2", "1")]
    told = {"host": "node1", "gpu_uuid": "GPU-1", "parameters": '{"seed": 0}'}
    assert {name: rows[0][name] for name in told} == told
    stored = read_results(campaign / "s1" / "results.csv")
    assert set(stored) <= rows[0].keys()
    assert float(rows[0]["lat_p95"]) == stored["lat_p95"][0]


DAMAGED = [  # what else is read, tests/results/test_stored.py damages
    *[(FACTS, content) for content in (None, b"", b"[]", b"{}", b"\xff", b"[" * 5000)],
    *[("session.json", None), ("results.csv", f"{','.join(COLUMNS)}\n".encode())],
    ("environment.json", b'{"software": [], "cuda": 1, "cpu": null, "gpu": "x", "git": 0}'),
]


def test_attack_A10_a_damaged_session_is_listed_and_the_others_are_merged(tmp_path, campaign):
    for name in ("s1", "s2"):
        land(campaign, task_of(name), files_of(tmp_path, name))
    for name, content in DAMAGED:
        path = campaign / "s1" / name
        before = path.read_bytes()
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        rows, damaged = merged(campaign, map(task_of, ("s1", "s2")))
        assert (set(rows["session"]), set(damaged)) == ({"s2"}, {"s1"}), (name, content)
        path.write_bytes(before)


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "x" * 30_000])
def test_attack_A12_no_name_of_a_device_is_a_formula(tmp_path, campaign, name):
    machine = MACHINE | {"gpu": {"name": "GPU", "uuid": "=x"}, "git": {"commit": "=x"}}
    files = files_of(tmp_path, "s1", machine, row={"gpu_name": name}, host=name)
    land(campaign, task_of("s1"), files)
    write_tables(campaign, merged(campaign, [task_of("s1")])[0], {"s9": "\ud800"})
    for table in (TABLE, COMPARISON):
        with open(campaign / table, newline="", encoding="utf8") as file:
            cells = [cell for line in csv.reader(file) for cell in line]
        assert any(name in cell for cell in cells)
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_a_session_is_measured_and_comes_back_whole_or_is_told_as_text(
    tmp_path, campaign, monkeypatch
):
    notebook = str(write_notebook(tmp_path / "stand_in.ipynb"))
    task = task_of("s1", code=code_hash(notebook))
    files = measure(task, notebook, tmp_path)
    assert {"results.csv", "run_1.npz", "session.json", "stand_in.ipynb", FACTS} <= set(files)
    assert not any(name.startswith(".") for name in files)
    land(campaign, task, files)
    assert merged(campaign, [task])[1] == {}

    def refused(told, **changes):
        with pytest.raises(RuntimeError, match=told):
            measure(replace(task, **changes), notebook, tmp_path)

    failing = {"session": "s2", "parameters": {"seed": FAILING_SEED}}
    refused(r"cell \[\d\]: RuntimeError: no GPU likes seed 13", **failing)
    refused("is not the plan's", code="y")
    nothing = lambda _, executed, *args, **kwargs: executed.write_text("{}")  # noqa: E731
    monkeypatch.setattr(campaign_session.papermill, "execute_notebook", nothing)
    refused("no finished session", session="s3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    refused("2 GPUs are visible")
