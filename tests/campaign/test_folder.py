"""Sessions are measured, land whole or not at all, and one table holds them all."""

import csv
import errno
import json
import os
import subprocess
import sys

import pytest

from helpers.after.campaign import session as campaign_session
from helpers.after.campaign.merge import FAILURES, TABLE, claimed, land, merged, write_tables
from helpers.after.campaign.plan import make_plan
from helpers.after.campaign.session import ROOT, measure
from helpers.after.campaign.stored import ADDED, FACTS, Facts, SessionError, Task
from helpers.results import COLUMNS, ResultsError, read_results
from helpers.results import files as results_files
from tests.campaign.stand_in import FAILING_SEED, environment, write_notebook, write_session


def task_of(session, **changes) -> Task:
    values = {"campaign": "c", "set": 1, "repetition": 1, "parameters": {"seed": 0}, "code": "x"}
    return Task(session=session, **{**values, **changes})


def files_of(tmp_path, session, p95=(1.31, 1.32), env=None, row=None, task=None, **changes):
    """A session's files, as a worker sends them."""
    folder = write_session(tmp_path / "worker" / "results", session, p95, env, **(row or {}))
    seen = {"host": "node1", "machine": "boot1", "visible_gpus": []}
    times = {"started_s": 0.0, "finished_s": 60.0}
    facts = Facts(**{**task_of(session, **(task or {})).model_dump(), **seen, **times, **changes})
    (folder / FACTS).write_text(facts.model_dump_json())
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def campaign(tmp_path):
    folder = tmp_path / "campaign_c"
    with claimed(folder):
        yield folder


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_a_session_lands_as_it_left_or_not_at_all(tmp_path, campaign):
    files = files_of(tmp_path, "s1")
    for lost in ("session.json", "results.csv", "verdict.json", FACTS):
        with pytest.raises(SessionError):
            land(campaign, task_of("s1"), {n: c for n, c in files.items() if n != lost})
    for name in ("../x", "/etc/x", "a/../../x", ""):
        with pytest.raises(SessionError, match="outside its folder"):
            land(campaign, task_of("s1"), {**files, name: b""})
    with pytest.raises(SessionError, match="session is 's1'"):
        land(campaign, task_of("s2"), files)
    assert os.listdir(campaign) == [".campaign.lock"]
    land(campaign, task_of("s1"), files)
    assert {p.name: p.read_bytes() for p in (campaign / "s1").iterdir()} == files
    assert visible(campaign) == ["s1"]


def test_a_full_disk_leaves_nothing_behind(tmp_path, campaign, monkeypatch):
    files, whole = files_of(tmp_path, "s1"), results_files.os.replace

    def full(source, target):
        if str(target).endswith("verdict.json"):
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(source, target)

    monkeypatch.setattr(results_files.os, "replace", full)
    with pytest.raises(ResultsError, match="No space left on device"):
        land(campaign, task_of("s1"), files)
    assert visible(campaign) == []


def test_a_second_process_is_refused_and_leftovers_are_cleared(tmp_path):
    (tmp_path / ".s1.abc.tmp" / "deep").mkdir(parents=True)
    with claimed(tmp_path):
        assert os.listdir(tmp_path) == [".campaign.lock"]
        code = "from helpers.after.campaign.merge import claimed; import sys, pathlib\n"
        code += "with claimed(pathlib.Path(sys.argv[1])): pass"
        ended = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
        )
    assert "another process is running this campaign" in ended.stderr


def test_the_table_holds_every_run_digit_for_digit(tmp_path, campaign):
    gpu = environment(
        gpu={"name": "GPU", "uuid": "GPU-1"}, cuda={"driver": "580.1", "cudnn": "9.19"}
    )
    land(campaign, task_of("s1"), files_of(tmp_path, "s1", (1 / 3, 1.5), gpu))
    land(campaign, task_of("s2"), files_of(tmp_path, "s2", (2.5,)))
    sessions, damaged = merged(campaign, map(task_of, ("s1", "s2", "s3")))  # s3 is not there yet
    write_tables(campaign, [row for own in sessions.values() for row in own], damaged)
    assert json.loads((campaign / FAILURES).read_text()) == []
    with open(campaign / TABLE, encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == (*ADDED, *COLUMNS)
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    assert [(row["session"], row["run"]) for row in rows] == [("s1", "1"), ("s1", "2"), ("s2", "1")]
    told = {name: rows[0][name] for name in ("host", "gpu_uuid", "driver", "cudnn", "commit")}
    assert told == {
        **{"host": "node1", "gpu_uuid": "GPU-1", "driver": "580.1"},
        **{"cudnn": "9.19", "commit": "abc"},
    }
    with open(campaign / "s1" / "results.csv", encoding="utf-8", newline="") as file:
        own = next(csv.DictReader(file))
    assert {name: rows[0][name] for name in COLUMNS} == own
    assert float(own["lat_p95"]) == read_results(campaign / "s1/results.csv")["lat_p95"][0] == 1 / 3
    assert json.loads(rows[0]["parameters"]) == {"seed": 0}


def test_host_shared_is_told_of_sessions_that_overlap_on_one_machine(tmp_path, campaign):
    times = {  # session: (machine, from, to)
        "long": ("a", 0.0, 100.0),
        "inside": ("a", 10.0, 20.0),
        "later": ("a", 50.0, 60.0),  # overlaps the first one, not the one before it
        "after": ("a", 100.0, 110.0),
        "elsewhere": ("b", 0.0, 100.0),
    }
    for name, (machine, start, end) in times.items():
        files = files_of(tmp_path, name, machine=machine, started_s=start, finished_s=end)
        land(campaign, task_of(name), files)
    sessions, _ = merged(campaign, map(task_of, times))
    shared = {name for name, rows in sessions.items() if rows[0]["host_shared"]}
    assert shared == {"long", "inside", "later"}


HEADER_ONLY = f"{','.join(COLUMNS)}\n".encode()
DAMAGED = [
    *[(name, content) for name in (FACTS, "session.json", "environment.json", "verdict.json")
      for content in (None, b"", b"[]", b"null", b"{}", b"\xff", b"[" * 5000)],
    *[("results.csv", content) for content in (None, b"", b"\xff", b"a,b\n1\n", HEADER_ONLY)],
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
        sessions, damaged = merged(campaign, map(task_of, ("s1", "s2")))
        assert (set(sessions), set(damaged)) == ({"s2"}, {"s1"}), (name, content)
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
    gpu = environment(gpu={"name": "GPU", "uuid": "=x"}, git={"commit": "=x"})
    files = files_of(tmp_path, "s1", env=gpu, row={"gpu_name": name}, host=name)
    land(campaign, task_of("s1"), files)
    sessions, _ = merged(campaign, [task_of("s1")])
    write_tables(campaign, sessions["s1"], {"s9": "\ud800"})
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

    task, notebook = planned()
    refused(planned(seed=FAILING_SEED), r"cell \[\d\]: RuntimeError: no GPU likes seed 13")
    refused((task.model_copy(update={"code": "y"}), notebook), "not the one that the plan was")
    (tmp_path / task.session).rename(tmp_path / "failed")

    def nothing(_, executed, *args, **kwargs):
        executed.write_text("{}")

    def dies(*args, **kwargs):
        raise RuntimeError("Kernel died\nsome more")

    for step, told in ((nothing, "no finished session"), (dies, r"Kernel died \| some more")):
        monkeypatch.setattr(campaign_session.papermill, "execute_notebook", step)
        refused((task, notebook), told)
        (tmp_path / task.session).rename(tmp_path / step.__name__)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    refused((task, notebook), r"sees 2 GPUs.*one worker per GPU")
