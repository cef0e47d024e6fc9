"""Sessions are measured, land whole or not at all, and one table holds them all."""

import csv
import errno
import json
import os
from dataclasses import asdict, replace

import pytest

from helpers.after.campaign import session as campaign_session
from helpers.after.campaign.merge import FAILURES, TABLE, land, merged, write_tables
from helpers.after.campaign.plan import make_plan
from helpers.after.campaign.session import FACTS, SessionError, Task, measure
from helpers.results import COLUMNS, ResultsError, read_results
from helpers.results import files as results_files
from tests.campaign.stand_in import FAILING_SEED, ON_A_CPU, session, write_notebook
from tests.disk_session import MACHINE


def task_of(name, **changes) -> Task:
    values = {"campaign": "c", "set": 1, "repetition": 1, "parameters": {"seed": 0}, "code": "x"}
    return Task(session=name, **values | changes)


def files_of(
    tmp_path, name, task=None, machine=ON_A_CPU, levels=(1.31, 1.32), row=None, facts=None
):
    """A session's files, as a worker sends them."""
    folder = session(tmp_path / "worker", name, levels, machine, **(row or {}))
    told = {"host": "node1", "machine": "boot1", "visible_gpus": []}
    told |= {"started_s": 0.0, "finished_s": 60.0}
    content = asdict(task_of(name, **(task or {}))) | told | (facts or {})
    (folder / FACTS).write_text(json.dumps(content))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def campaign(tmp_path):
    folder = tmp_path / "campaign_c"
    folder.mkdir()
    return folder


def test_a_session_lands_as_it_left_or_not_at_all(tmp_path, campaign):
    files = files_of(tmp_path, "s1")
    for lost in ("session.json", "results.csv", "verdict.json", FACTS):
        with pytest.raises(SessionError):
            land(campaign, task_of("s1"), {n: c for n, c in files.items() if n != lost})
    for name in ("../x", "/etc/x", "a/../../x", ""):
        with pytest.raises(SessionError, match="outside its folder"):
            land(campaign, task_of("s1"), {**files, name: b""})
    assert os.listdir(campaign) == []
    land(campaign, task_of("s1"), files)
    assert {p.name: p.read_bytes() for p in (campaign / "s1").iterdir()} == files
    assert os.listdir(campaign) == ["s1"]


def test_a_full_disk_leaves_nothing_behind(tmp_path, campaign, monkeypatch):
    files, whole = files_of(tmp_path, "s1"), os.replace

    def full(source, target):
        if str(target).endswith("verdict.json"):
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(source, target)

    monkeypatch.setattr(results_files.os, "replace", full)
    with pytest.raises(ResultsError, match="No space left on device"):
        land(campaign, task_of("s1"), files)
    assert os.listdir(campaign) == []


def test_the_table_holds_every_run_digit_for_digit(tmp_path, campaign):
    land(campaign, task_of("s1"), files_of(tmp_path, "s1", machine=MACHINE, levels=(1 / 3, 1.5)))
    land(campaign, task_of("s2"), files_of(tmp_path, "s2", levels=(2.5,)))
    rows, damaged = merged(campaign, map(task_of, ("s1", "s2", "s3")))  # s3 is not there yet
    write_tables(campaign, rows, damaged)
    assert json.loads((campaign / FAILURES).read_text()) == []
    with open(campaign / TABLE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["session"], row["run"]) for row in rows] == [("s1", "1"), ("s1", "2"), ("s2", "1")]
    told = {"host": "node1", "gpu_uuid": "GPU-1", "driver": "580.1", "cudnn": "9.19"}
    told |= {"commit": "abc", "host_shared": "True", "parameters": '{"seed": 0}'}
    assert {name: rows[0][name] for name in told} == told
    stored = read_results(campaign / "s1" / "results.csv")
    assert set(stored) <= rows[0].keys()
    assert float(rows[0]["lat_p95"]) == stored["lat_p95"][0]


def test_host_shared_is_told_of_sessions_that_overlap_on_one_machine(tmp_path, campaign):
    times = {  # session: (machine, from, to)
        "long": ("a", 0.0, 100.0),
        "inside": ("a", 10.0, 20.0),
        "later": ("a", 50.0, 60.0),  # overlaps the first one, not the one before it
        "after": ("a", 100.0, 110.0),
        "elsewhere": ("b", 0.0, 100.0),
    }
    for name, (machine, start, end) in times.items():
        facts = {"machine": machine, "started_s": start, "finished_s": end}
        land(campaign, task_of(name), files_of(tmp_path, name, facts=facts))
    rows, _ = merged(campaign, map(task_of, times))
    assert set(rows["session"][rows["host_shared"]]) == {"long", "inside", "later"}


DAMAGED = [
    *[(name, content) for name in (FACTS, "session.json", "environment.json", "verdict.json")
      for content in (None, b"", b"[]", b"null", b"{}", b"\xff", b"[" * 5000)],
    *[("results.csv", content) for content in (None, b"", b"\xff", b"a,b\n1\n")],
    ("results.csv", f"{','.join(COLUMNS)}\n".encode()),
    ("environment.json", b'{"software": [], "cuda": 1, "cpu": null, "gpu": "x", "git": 0}'),
    (FACTS, "fifo"),
]  # fmt: skip


def test_attack_A10_a_damaged_session_is_listed_and_the_others_are_merged(tmp_path, campaign):
    for name in ("s1", "s2"):
        land(campaign, task_of(name), files_of(tmp_path, name))
    for name, content in DAMAGED:
        path = campaign / "s1" / name
        before = path.read_bytes()
        path.unlink()
        if content == "fifo":
            os.mkfifo(path)
        elif content is not None:
            path.write_bytes(content)
        rows, damaged = merged(campaign, map(task_of, ("s1", "s2")))
        assert (set(rows["session"]), set(damaged)) == ({"s2"}, {"s1"}), (name, content)
        path.unlink(missing_ok=True)
        path.write_bytes(before)


@pytest.mark.parametrize(
    "other", [{"code": "y"}, {"campaign": "d"}, {"parameters": {"seed": 1}}, {"set": 2}]
)
def test_attack_A10_a_session_of_other_code_or_another_plan_is_not_finished(
    tmp_path, campaign, other
):
    with pytest.raises(SessionError, match=next(iter(other))):
        land(campaign, task_of("s1"), files_of(tmp_path, "s1", task=other))


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "@x", r"$\frac{$", "x" * 30_000, "$"])
def test_attack_A12_no_name_of_a_device_is_a_formula(tmp_path, campaign, name):
    machine = MACHINE | {"gpu": {"name": "GPU", "uuid": "=x"}, "git": {"commit": "=x"}}
    files = files_of(tmp_path, "s1", machine=machine, row={"gpu_name": name}, facts={"host": name})
    land(campaign, task_of("s1"), files)
    rows, _ = merged(campaign, [task_of("s1")])
    write_tables(campaign, rows, {"s9": "\ud800"})
    for table in (TABLE, "comparaison.csv"):
        with open(campaign / table, newline="", encoding="utf8") as file:
            cells = [cell for line in csv.reader(file) for cell in line]
        assert any(name in cell for cell in cells)
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


@pytest.fixture
def planned(tmp_path):
    notebook = str(write_notebook(tmp_path / "stand_in.ipynb"))

    def task(**parameters):
        return next(make_plan({"parameters": parameters}, notebook).tasks())[0], notebook

    return task


def test_a_session_is_measured_and_its_folder_comes_back_whole(planned, tmp_path, campaign):
    task, notebook = planned(seed=4)
    files = measure(task, notebook, tmp_path)
    assert {"results.csv", "run_1.npz", "session.json", "stand_in.ipynb", FACTS} <= set(files)
    assert not any(name.startswith(".") for name in files)
    land(campaign, task, files)
    assert merged(campaign, [task])[1] == {}


def test_what_a_worker_cannot_measure_is_told_as_text(planned, tmp_path, monkeypatch):
    def refused(task, told):
        with pytest.raises(SessionError, match=told):
            measure(*task, tmp_path)

    def nothing(_, executed, *args, **kwargs):
        executed.write_text("{}")

    task, notebook = planned()
    refused(planned(seed=FAILING_SEED), r"cell \[\d\]: RuntimeError: no GPU likes seed 13")
    refused((replace(task, code="y"), notebook), "is not the plan's")
    (tmp_path / task.session).rename(tmp_path / "failed")
    monkeypatch.setattr(campaign_session.papermill, "execute_notebook", nothing)
    refused((task, notebook), "no finished session")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    refused((task, notebook), "2 GPUs are visible")
