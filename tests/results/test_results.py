"""Results: what is written is read back the same, and nothing is lost, mixed or half-written."""

import errno
import json
import math
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from result_rows import SAMPLES, row, snapshot, state_of

from helpers.results import (
    PUBLISHED,
    ResultsError,
    load_samples,
    open_session,
    read_results,
)
from helpers.results import files as results_files
from helpers.results import table as results_table
from helpers.results.table import KINDS, check_row, csv_text, from_csv, to_frame

ROOT = Path(__file__).parents[2]

# A session from beginning to end


def test_session_keeps_each_run_and_publishes_when_complete(tmp_path):
    session = open_session(tmp_path / "deep" / "results", "first")
    published = tmp_path / "deep" / "results" / PUBLISHED
    for run in (1, 2):
        path = session.add_run(row("first", run=run), SAMPLES)
        assert path == session.folder / f"run_{run}.npz"
        kept = read_results(session.folder / "results.csv")
        assert list(kept["run"]) == list(range(1, run + 1))
        pd.testing.assert_frame_equal(kept, session.rows)
        assert state_of(session.folder) == "running"
        assert not published.exists()
    assert session.complete() == published
    assert state_of(session.folder) == "complete"
    pd.testing.assert_frame_equal(read_results(published), session.rows)
    loaded = load_samples(session.folder / "run_2.npz")
    assert loaded.keys() == SAMPLES.keys()
    for name, values in SAMPLES.items():
        np.testing.assert_array_equal(loaded[name], values)
    assert not [name for name in snapshot(tmp_path) if name.endswith(".tmp")]


def test_a_complete_session_takes_no_more_runs_but_may_be_published_again(tmp_path):
    session = open_session(tmp_path, "s")
    session.add_run(row(), SAMPLES)
    session.complete()
    finished = (session.folder / "session.json").read_text()
    (tmp_path / PUBLISHED).unlink()
    session.complete()
    assert len(read_results(tmp_path / PUBLISHED)) == 1
    assert (session.folder / "session.json").read_text() == finished
    with pytest.raises(ResultsError, match="complete: open a new one"):
        session.add_run(row(run=2), SAMPLES)


def test_nothing_is_published_without_runs(tmp_path):
    session = open_session(tmp_path, "s")
    with pytest.raises(ResultsError, match="no runs"):
        session.complete()
    assert state_of(session.folder) == "running"
    assert not (tmp_path / PUBLISHED).exists()


def test_the_next_complete_session_replaces_the_published_rows(tmp_path):
    for name in ("a", "b"):
        session = open_session(tmp_path, name)
        session.add_run(row(name), SAMPLES)
        session.complete()
    assert list(read_results(tmp_path / PUBLISHED)["session"]) == ["b"]
    assert list(read_results(tmp_path / "a" / "results.csv")["session"]) == ["a"]


# Names and folders


@pytest.mark.parametrize(
    "name",
    [
        "../up",
        "a/b",
        ".hidden",
        " ",
        "a b",
        "é",
        "x" * 101,
        "a\n",
        "/etc",
        "-p",
        "..",
        PUBLISHED,
    ],
)
def test_bad_session_names_are_refused(tmp_path, name):
    with pytest.raises(ResultsError, match=r"session name .* is not allowed: at most 100"):
        open_session(tmp_path / "results", name)
    assert not (tmp_path / "results").exists()


def test_session_folder_may_hold_the_notebook_papermill_writes(tmp_path):
    folder = tmp_path / "s"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    (folder / "J1_benchmark.ipynb").write_text("{}")
    open_session(tmp_path, "s")
    assert (folder / "J1_benchmark.ipynb").read_text() == "{}"


@pytest.mark.parametrize("content", ["session.json", "results.csv", "run_1.npz", "notes.txt"])
def test_session_that_holds_results_is_refused(tmp_path, content):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / content).write_text("mine")
    with pytest.raises(
        ResultsError, match=rf"'s' already holds results .*{content}.* another name"
    ):
        open_session(tmp_path, "s")
    assert snapshot(tmp_path) == {f"s/{content}": b"mine"}


def test_unfinished_session_is_not_published_and_the_next_one_starts(tmp_path):
    killed = open_session(tmp_path, "killed")
    killed.add_run(row("killed"), SAMPLES)
    (tmp_path / f".{PUBLISHED}.0123abcd.tmp").write_text("half")
    session = open_session(tmp_path, "next")
    session.add_run(row("next"), SAMPLES)
    session.complete()
    assert list(read_results(tmp_path / PUBLISHED)["session"]) == ["next"]
    assert state_of(killed.folder) == "running"
    assert not list(tmp_path.glob(".*.tmp"))


def test_published_file_spoilt_during_the_session_is_never_replaced(tmp_path):
    session = open_session(tmp_path, "s")
    session.add_run(row(), SAMPLES)
    (tmp_path / PUBLISHED).write_text("garbage")
    with pytest.raises(ResultsError, match="move it away"):
        session.complete()
    assert (tmp_path / PUBLISHED).read_text() == "garbage"
    assert state_of(session.folder) == "running"
    (tmp_path / PUBLISHED).unlink()
    session.complete()
    assert len(read_results(tmp_path / PUBLISHED)) == 1


# What the machine does


def test_publication_that_failed_can_be_repeated(tmp_path, monkeypatch):
    session = open_session(tmp_path, "s")
    session.add_run(row(), SAMPLES)
    replace = os.replace

    def full(source, target):
        if Path(target).name == PUBLISHED:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", full)
        with pytest.raises(ResultsError, match=f"cannot write .*{PUBLISHED}: No space left"):
            session.complete()
    assert not (tmp_path / PUBLISHED).exists()
    session.complete()
    assert len(read_results(tmp_path / PUBLISHED)) == 1


def test_lock_held_for_too_long_is_said(tmp_path, monkeypatch):
    session = open_session(tmp_path, "s")
    session.add_run(row(), SAMPLES)
    monkeypatch.setattr(results_files, "LOCK_TIMEOUT_S", 0.0)
    with (
        filelock.FileLock(tmp_path / results_files.LOCK),
        pytest.raises(ResultsError, match=r"another session has held .*\.lock for 0 s:"),
    ):
        session.complete()
    session.complete()


WRITER = """
import sys
from helpers.results import open_session
sys.path.insert(0, "tests")
from result_rows import SAMPLES, row
folder, rounds, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for _ in range(rounds):
    session = open_session(folder)
    for run in range(1, runs + 1):
        session.add_run(row(session.name, run=run, flags="x" * 5000), SAMPLES)
        print(session.name, run, flush=True)
    session.complete()
    print(session.name, "complete", flush=True)
"""

KILLED = """
import itertools, os, signal, sys
from pathlib import Path
from helpers.results import PUBLISHED, open_session, read_results
sys.path.insert(0, "tests")
from result_rows import SAMPLES, row, state_of

def measure(folder):
    session = open_session(folder, "second")
    for run in (1, 2):
        session.add_run(row("second", run=run), SAMPLES)
    session.complete()

def kill_at(step):
    count = itertools.count()
    for name in ("fsync", "replace"):
        def call(*args, real=getattr(os, name)):
            if next(count) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args)
        setattr(os, name, call)

for step in itertools.count():
    folder = Path(sys.argv[1]) / str(step)
    first = open_session(folder, "first")
    first.add_run(row("first"), SAMPLES)
    first.complete()
    child = os.fork()
    if child == 0:
        kill_at(step)
        measure(folder)
        os._exit(0)
    killed = os.waitpid(child, 0)[1] != 0
    published = read_results(folder / PUBLISHED)["session"].tolist()
    assert published in (["first"], ["second", "second"]), published
    state = folder / "second" / "session.json"
    complete = state.exists() and state_of(folder / "second") == "complete"
    assert complete or published == ["first"], (step, published)
    kept = folder / "second" / "results.csv"
    assert not complete or len(read_results(kept)) == 2
    assert not kept.exists() or read_results(kept)["run"].tolist() in ([1], [1, 2])
    third = open_session(folder, "third")
    third.add_run(row("third"), SAMPLES)
    third.complete()
    assert read_results(folder / PUBLISHED)["session"].tolist() == ["third"]
    if not killed:
        print(step, "points")
        break
"""


def python(code, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def test_killed_at_every_sync_and_rename(tmp_path):
    process = python(KILLED, tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert int(output.split()[0]) >= 7 * 3  # 7 files, each: sync, rename, sync of the folder


def test_two_sessions_at_once_lose_and_mix_nothing(tmp_path):
    processes = [python(WRITER, tmp_path, 10, 3) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    names = {line.split()[0] for output in outputs for line in output.splitlines()}
    assert len(names) == 20
    for name in names:
        kept = read_results(tmp_path / name / "results.csv")
        assert kept["run"].tolist() == [1, 2, 3]
        assert set(kept["session"]) == {name}
        assert state_of(tmp_path / name) == "complete"
    published = read_results(tmp_path / PUBLISHED)
    kept = read_results(tmp_path / published["session"][0] / "results.csv")
    pd.testing.assert_frame_equal(published, kept)


# Rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lat_mean": math.nan}, "lat_mean: got nan .* a finite number"),
        ({"lat_mean": None}, "lat_mean: got None"),
        ({"lat_p95": math.inf}, "lat_p95: got inf .* finite"),
        ({"lat_std": -0.1}, "lat_std: got -0.1 .*, allowed: finite ms >= 0$"),
        (
            {"lat_std": "0.1"},
            "lat_std: got '0.1' .str., allowed: a number, or None where the figure does not exist$",
        ),
        ({"lat_std": True}, "lat_std: got True .bool."),
        ({"gpu_p95": np.inf}, "gpu_p95: got inf"),
        ({"accuracy": 1.01}, r"accuracy: got 1.01 .* a fraction in \[0, 1\]"),
        ({"accuracy": -0.01}, "accuracy: got -0.01"),
        ({"accuracy": 9.8}, "accuracy: got 9.8"),
        ({"timestamp": "2026-11-24T21:40:00"}, "timestamp: .* with a time zone"),
        ({"timestamp": "2026-11-24"}, "timestamp: .* with a time zone"),
        (
            {"timestamp": "yesterday"},
            "timestamp: got 'yesterday' .str., allowed: ISO 8601 with a time zone, such as "
            r"'2026-11-24T21:40:00\+01:00'$",
        ),
        ({"timestamp": datetime(2026, 11, 24)}, "timestamp: .* with a time zone"),
        ({"timestamp": 1.7e9}, "timestamp: .*float"),
        ({"timestamp": None}, "timestamp: got None"),
        ({"timestamp": pd.NaT}, "timestamp: got NaT"),
        ({"run": 0}, "run: got 0 .* an integer >= 1"),
        ({"run": 1.0}, "run: got 1.0 .float."),
        ({"run": True}, "run: got True"),
        ({"run": None}, "run: got None"),
        ({"run": 2**63}, "run: got 9223372036854775808"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"measure_iters": 0}, "measure_iters: got 0"),
        ({"retried_batches": -1}, "retried_batches: got -1 .* an integer >= 0"),
        ({"eval_images": "10000"}, "eval_images: got '10000'"),
        ({"variant": ""}, "variant: got '' .*, allowed: a name that is not empty$"),
        ({"variant": " \n"}, "variant: .* not empty"),
        ({"variant": 18}, "variant: got 18 .int., allowed: text"),
        ({"input_shape": (1, 3, 32, 32)}, "input_shape: .*tuple"),
        ({"flags": math.nan}, "flags: got nan"),
        ({"flags": "x" * 32_001}, "flags: got .* allowed: at most 32000 characters"),
        ({"clock": "wall"}, "clock: got 'wall' .* one of 'gpu', 'host'"),
        ({"dataset": "mnist"}, "dataset: got 'mnist' .* 'cifar10', 'synthetic'"),
        (
            {"lat_min": 2.0},
            "lat_min <= lat_p50 <= lat_p95 <= lat_max does not hold: "
            "lat_min=2.0, lat_p50=1.306, lat_p95=1.31, lat_max=1.4$",
        ),
        ({"lat_p50": 1.35}, "lat_p50 <= lat_p95"),
        ({"lat_max": 1.3}, "lat_p95 <= lat_max"),
        ({"lat_p95_low": 1.2}, "lat_p95_low=1.2 and lat_p95_high=None are no interval"),
        ({"lat_p95_high": 1.4}, "are no interval"),
        ({"lat_p95_low": 1.4, "lat_p95_high": 1.2}, "are no interval"),
        ({"clock": "host"}, "clock='host' decides, but lat_mean=1.3072 is not host_mean=1.9"),
        ({"gpu_p95": None}, "clock='gpu' decides, but lat_p95=1.31 is not gpu_p95=None"),
    ],
)
def test_rows_that_cannot_be_right_are_refused(tmp_path, changes, message):
    session = open_session(tmp_path, "s")
    session.add_run(row(), SAMPLES)
    before = snapshot(tmp_path)
    with pytest.raises(ResultsError, match=message) as caught:
        session.add_run(row(run=2) | changes, SAMPLES)
    assert len(str(caught.value)) < 300
    assert snapshot(tmp_path) == before
    assert len(session.rows) == 1


def test_row_of_another_session_and_a_run_given_twice_are_refused(tmp_path):
    session = open_session(tmp_path, "s")
    session.add_run(row(), SAMPLES)
    with pytest.raises(ResultsError, match="names session 'other', not 's'"):
        session.add_run(row("other", run=2), SAMPLES)
    reason = r"already has this run .*'run': 1.*: open a new session to measure it again$"
    with pytest.raises(ResultsError, match=reason):
        session.add_run(row(lat_std=0.02), SAMPLES)
    session.add_run(row(variant="channels_last"), SAMPLES)
    session.add_run(row(precision="tf32"), SAMPLES)
    session.add_run(row(batch_size=8), SAMPLES)
    session.add_run(row(schedule="interleaved"), SAMPLES)
    assert len(session.rows) == 5


def test_what_does_not_exist_is_an_empty_cell_not_zero():
    host = {"clock": "host", "lat_mean": 1.9, "lat_p95": 1.31, "host_p95": 1.31}
    empty = {"gpu_mean": None, "gpu_p95": None, "accuracy": None, "gpu_name": None}
    text = csv_text([check_row(row() | host | empty)])
    cells = dict(zip(*(line.split(",") for line in text.splitlines()), strict=True))
    assert [cells[name] for name in (*empty, "lat_p95_low", "flags")] == [""] * 6
    frame = to_frame(from_csv(text))
    assert frame[["gpu_mean", "gpu_p95", "accuracy", "lat_p95_low"]].isna().all(axis=None)
    assert frame["gpu_name"][0] == frame["flags"][0] == ""


# The file as other programs see it


@pytest.mark.parametrize(
    "text", ["NA", "nan", "None", "007", "1e3", "True", " padded ", "'", "''x", 'a"b,c;d', "é 🚀"]
)
def test_texts_stay_the_texts_they_were(text):
    (back,) = from_csv(csv_text([check_row(row(variant=text, flags=text))]))
    assert back["variant"] == back["flags"] == text


latencies = st.floats(0, 1e9, allow_nan=False)
optional = st.none() | latencies
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
zones = st.timezones() | st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m)))


@st.composite
def valid_rows(draw):
    low, middle, high, most = sorted(draw(st.tuples(*[latencies] * 4)))
    interval = sorted(draw(st.tuples(latencies, latencies))) if draw(st.booleans()) else [None] * 2
    mean, clock = draw(latencies), draw(st.sampled_from(["host", "gpu"]))
    deciding = {f"{clock}_mean": mean, f"{clock}_p95": high}
    integers = [name for name, kind in KINDS.items() if kind == results_table.INTEGER]
    free = ("variant", "gpu_name", "device", "input_shape", "schedule", "session", "flags")
    return (
        {name: draw(texts) for name in KINDS if KINDS[name] == results_table.TEXT}
        | {name: draw(optional) for name in ("host_mean", "host_p95", "gpu_mean", "gpu_p95")}
        | {name: draw(st.integers(1, 2**63 - 1)) for name in integers}
        | {name: draw(texts) for name in free}
        | dict(
            zip(
                ("lat_min", "lat_p50", "lat_p95", "lat_max"), (low, middle, high, most), strict=True
            )
        )
        | dict(zip(("lat_p95_low", "lat_p95_high"), interval, strict=True))
        | {"lat_mean": mean, "lat_std": draw(latencies), "clock": clock, **deciding}
        | {"variant": "v" + draw(texts), "dataset": draw(st.sampled_from(["cifar10", "synthetic"]))}
        | {"accuracy": draw(st.none() | st.floats(0, 1))}
        | {"timestamp": draw(st.datetimes(timezones=zones, allow_imaginary=False))}
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(valid_rows(), max_size=4))
def test_rows_are_read_back_as_they_were(rows):
    checked = [check_row(given_row) for given_row in rows]
    assert [check_row(kept) for kept in checked] == checked
    back = from_csv(csv_text(checked))
    assert back == checked
    pd.testing.assert_frame_equal(to_frame(back), to_frame(checked))
    for given_row, kept in zip(rows, back, strict=True):
        for name, kind in KINDS.items():
            if kind == results_table.TIME:
                assert kept[name].replace(tzinfo=None) == given_row[name].replace(
                    tzinfo=None, fold=0
                )
                assert kept[name].utcoffset() == given_row[name].utcoffset()
            elif kind != results_table.TEXT:
                assert kept[name] == given_row[name]


# Samples, JSON, figures


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({}, r"^a run is kept with its raw samples, but none were given$"),
        ({"host_ms": np.array([object()])}, "'host_ms' .object. cannot be kept"),
        ({"host_ms": np.array(["1.0"])}, "cannot be kept"),
        ({"../host": np.zeros(2)}, "'../host' .* of lower-case letters, digits and '_'$"),
        ({"file": np.zeros(2)}, "'file'"),
        ({"allow_pickle": np.zeros(2)}, "'allow_pickle'"),
        ({"": np.zeros(2)}, "''"),
    ],
)
def test_samples_that_cannot_be_kept(tmp_path, samples, message):
    session = open_session(tmp_path, "s")
    with pytest.raises(ResultsError, match=message):
        session.add_run(row(), samples)
    assert not list(session.folder.glob("run_*"))


def test_samples_of_every_kind_come_back(tmp_path):
    kept = {"host_ms": np.arange(5.0), "tagged": np.array([True, False]), "file_": np.arange(3)}
    loaded = load_samples(open_session(tmp_path, "s").add_run(row(), kept))
    for name, values in kept.items():
        np.testing.assert_array_equal(loaded[name], values)
        assert loaded[name].dtype == values.dtype


def test_environment_and_json_are_readable_utf8(tmp_path):
    session = open_session(tmp_path, "s")
    environment = {"gpu": None, "cpu": {"model": "é"}, "cores": [1, 2]}
    path = session.save_environment(environment)
    assert path == session.folder / "environment.json"
    assert json.loads(path.read_text(encoding="utf-8")) == environment
    assert "é" in path.read_text(encoding="utf-8")
    assert session.save_json("verdict", {"ok": True}).name == "verdict.json"
    session.save_json("verdict", {"ok": False})
    assert json.loads((session.folder / "verdict.json").read_text()) == {"ok": False}


@pytest.mark.parametrize("content", [math.nan, object(), {1: {2, 3}}])
def test_json_that_cannot_be_written(tmp_path, content):
    session = open_session(tmp_path, "s")
    with pytest.raises(ResultsError, match=r"verdict\.json cannot be written"):
        session.save_json("verdict", content)
    assert not (session.folder / "verdict.json").exists()


@pytest.mark.parametrize("name", ["../up.md", "session.json", "results.csv", ".md", "a/b.html"])
def test_a_text_never_takes_another_files_place(tmp_path, name):
    session = open_session(tmp_path, "s")
    before = (session.folder / "session.json").read_bytes()
    with pytest.raises(ResultsError, match=r"text name .* is not allowed"):
        session.save_text(name, "")
    assert (session.folder / "session.json").read_bytes() == before


def test_files_have_the_permissions_of_ordinary_files(tmp_path):
    session = open_session(tmp_path, "s")
    (tmp_path / "ordinary").touch()
    expected = (tmp_path / "ordinary").stat().st_mode
    assert (session.folder / "session.json").stat().st_mode == expected
