"""Sessions: what is written is read back the same, and nothing is lost, mixed or half-written."""

import errno
import itertools
import json
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fakes import AS_REQUIRED, series
from looks_fake import CLEAN_GPU, look
from PIL import Image
from result_rows import FACTS, a_run, add, judged, opened, snapshot, state_of, write_session

from helpers.clocks.graph import GraphReading
from helpers.clocks.warmup import Warmup
from helpers.results import PUBLISHED, ResultsError, read_results
from helpers.validation import judge


def test_session_keeps_each_run_and_publishes_when_complete(tmp_path):
    session = opened(tmp_path / "deep" / "results", "first")
    published = tmp_path / "deep" / "results" / PUBLISHED
    runs = [a_run(seed=seed, rejected_gpu_ms=np.array([9.0])) for seed in (1, 2, 3)]
    for number, run in enumerate(runs, start=1):
        assert add(session, run) == session.folder / f"run_{number}.npz"
        kept = read_results(session.folder / "results.csv")
        assert kept["run"].tolist() == list(range(1, number + 1))
        pd.testing.assert_frame_equal(kept, session.rows)
        assert (session.runs, session.done()) == (tuple(runs[:number]), number)
        assert state_of(session.folder) == "running"
        assert not published.exists()
    assert session.complete(judged(session, "reserved")) == published
    assert (state_of(session.folder), session.done()) == ("complete", 3)  # the cell may run again
    assert published.read_bytes() == (session.folder / "results.csv").read_bytes()
    assert read_results(published)["accepted"].tolist() == ["reserved"] * 3
    loaded, run = np.load(session.folder / "run_2.npz"), runs[1]
    assert loaded["host_ms"].tolist() == run.host.samples_ms.tolist()
    assert loaded["gpu_ms"].tolist() == run.gpu.samples_ms.tolist()
    assert loaded["warmup_ms"].tolist() == run.warmup.samples_ms.tolist()
    assert loaded["rejected_gpu_ms"].tolist() == [9.0]


def test_a_complete_sessions_rows_say_what_the_verdict_over_all_runs_says(tmp_path):
    """One run lost the GPU's clock: the host decides for all; a tag may come with a later run."""
    session = opened(tmp_path, "s")
    for gpu_ms, sm_mhz in ((1.3, 1700), (None, 1980)):
        looks = [look(at, replace(CLEAN_GPU, sm_mhz=sm_mhz)) for at in (0.0, 1.0)]
        add(session, a_run(gpu_ms=gpu_ms, looks=looks, device="cuda:0"))
    assert session.rows["clock"].tolist() == ["gpu", "host"]
    session.complete(verdict := judge(session.runs))
    session.keep("runs", verdict.record())
    first, second = json.loads((session.folder / "runs.json").read_text())
    (tag,), values = first["seen"]["blocks"][0], {"mhz": 1700, "best_mhz": 1980}
    assert (tag["code"], tag["limit"], second["seen"]["blocks"]) == ("gpu_clock_drop", 0.05, [[]])
    assert values.items() <= tag["values"].items()  # why it was flagged can be read there
    rows = read_results(session.folder / "results.csv")
    assert rows["clock"].tolist() == ["host", "host"]
    assert rows["lat_p95"].tolist() == rows["host_p95"].tolist()
    assert ["gpu_clock_drop" in flags for flags in rows["flags"]] == [True, False]


def test_a_session_notes_what_it_begins_with(tmp_path):
    session = opened(tmp_path, "s", runs=5, model="a/folder/m.pt")
    read = {p.name: json.loads(p.read_text()) for p in session.folder.iterdir()}
    assert read["environment.json"] == FACTS
    assert read["parameters.json"]["runs"] == 5
    assert opened(tmp_path, "").name != opened(tmp_path, "").name
    add(session)
    assert session.rows[["model", "accepted"]].iloc[0].tolist() == ["m.pt", ""]


def test_a_complete_session_takes_no_more_runs_but_may_be_published_again(tmp_path):
    session = opened(tmp_path)
    with pytest.raises(ResultsError, match="no runs"):
        session.complete()
    add(session)
    with pytest.raises(ResultsError, match="other runs"):  # a verdict of before
        session.complete(judged(opened(tmp_path, "before"), "yes"))
    for _ in range(2):
        session.complete()
        assert len(read_results(tmp_path / PUBLISHED)) == 1
        (tmp_path / PUBLISHED).unlink()
    for call in (session.done, session.check_open, lambda: add(session)):  # two of three are left
        with pytest.raises(ResultsError, match="is complete"):
            call()


@pytest.mark.parametrize("results_dir", ["{}/notes.txt", "/proc/1"])
def test_a_results_dir_that_is_a_file_or_takes_none_is_named(tmp_path, results_dir):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ResultsError, match=r"cannot write .*/s: .*`results_dir`"):
        opened(results_dir.format(tmp_path))
    assert snapshot(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize(
    ("parameters", "own"),
    [({"device": "cpu", "variants": "all"}, True), ({"measure_iters": 40}, False)],
)
def test_only_j1s_own_parameters_replace_the_published_rows(tmp_path, parameters, own):
    write_session(tmp_path, "a")
    session = opened(tmp_path, "b", **parameters)
    add(session)
    assert session.complete() == (tmp_path / PUBLISHED if own else session.folder / "results.csv")
    assert set(read_results(tmp_path / PUBLISHED)["session"]) == {"b" if own else "a"}


@pytest.mark.parametrize("content", ["session.json", "run_1.npz", "notes.txt"])
def test_session_that_holds_results_is_refused_but_not_for_papermills_notebook(tmp_path, content):
    (tmp_path / "other" / ".ipynb_checkpoints").mkdir(parents=True)
    (tmp_path / "other" / "J1_benchmark.ipynb").touch()
    opened(tmp_path, "other")
    shutil.rmtree(tmp_path / "other")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / content).write_text("mine")
    with pytest.raises(ResultsError, match=rf"already holds results \({content}"):
        opened(tmp_path)
    assert snapshot(tmp_path) == {f"s/{content}": b"mine"}


def test_a_published_file_that_is_not_ours_is_never_replaced(tmp_path):
    session = opened(tmp_path)
    add(session)
    (tmp_path / PUBLISHED).write_text("name;value\nmine;1\n")
    for call in (session.complete, lambda: opened(tmp_path, "next")):
        with pytest.raises(ResultsError, match=PUBLISHED):
            call()
    assert (tmp_path / PUBLISHED).read_text() == "name;value\nmine;1\n"
    assert state_of(session.folder) == "running"


# The row of a run


def row_of(tmp_path, run, facts=FACTS, clock="auto", **told):
    session = opened(tmp_path, "", facts, clock=clock)
    add(session, run, **told)
    return session.rows.iloc[0]


def test_the_deciding_clock_fills_lat_and_both_stay_visible(tmp_path):
    run = a_run()
    by_gpu, by_host = row_of(tmp_path, run), row_of(tmp_path, run, clock="host")
    assert (by_gpu["clock"], by_gpu["lat_p95"]) == ("gpu", run.gpu.p95)
    assert (by_host["clock"], by_host["lat_p95"]) == ("host", run.host.p95)
    assert by_gpu["host_p95"] == by_host["host_p95"] == run.host.p95
    assert by_gpu["gpu_p95"] == run.gpu.p95
    assert by_gpu["lat_p95_low"] < by_gpu["lat_p95"] < by_gpu["lat_p95_high"]
    assert (by_gpu["measure_iters"], by_gpu["warmup_used"]) == (100, 50)
    profile = SimpleNamespace(kernel_ms=5.0)
    contradicted = row_of(tmp_path, a_run(gpu_ms=1.3), profile=profile)
    assert contradicted[["clock", "flags"]].tolist() == ["host", "gpu_clock_contradicted"]


def test_what_does_not_exist_is_empty_and_never_zero(tmp_path):
    walk = 5 + np.cumsum(series(0.01, n=100, sd=0.5))
    run = replace(a_run(gpu_ms=None), host=a_run(walk, None).host)
    facts = FACTS | {"gpu": None, "cuda": {"torch_cuda": None}}
    row = row_of(tmp_path, run, facts, accuracy=None)
    assert row[["gpu_mean", "gpu_p95", "lat_p95_low", "lat_p95_high", "accuracy"]].isna().all()
    assert row["gpu_name"] == row["cuda_version"] == row["flags"] == ""


ALLOWED = replace(AS_REQUIRED, tf32_convolutions=True, tf32_matmul=True)
THROTTLED = (look(0.0), look(1.0, replace(CLEAN_GPU, reasons=0x40)))
FLAGS = [
    ({}, ""),
    ({"warmup": Warmup(np.full(9, 2.0), steady=False)}, "unsteady_warmup"),
    ({"retried_batches": 1}, "retried_batches"),
    ({"gpu_ms": None, "device": "cuda:0"}, "gpu_clock_unavailable"),
    ({"conditions": ALLOWED}, "conditions_not_met"),
    ({"conditions": ALLOWED, "precision": "tf32"}, ""),
    ({"precision": "tf32"}, "conditions_not_met"),
    ({"gpu_ms": 0.1}, "gpu_clock_unproven"),
    ({"looks": THROTTLED}, "throttle"),
]


@pytest.mark.parametrize(("changes", "flags"), FLAGS)
def test_flags_say_what_speaks_against_the_figures(tmp_path, changes, flags):
    receipt = SimpleNamespace(flags=("uncalibrated",))
    told = row_of(tmp_path, a_run(**changes), receipt=receipt)["flags"]
    assert told.split(";") == [*filter(None, [flags]), "uncalibrated"]


def test_runs_are_numbered_by_variant_and_the_annex_makes_none_of_the_day(tmp_path):
    session = opened(tmp_path)
    run = a_run(graph=GraphReading(np.array([1.25, 1.26]), 60.0, why=""))
    add(session, run)
    for number, name in ((1, "fp16"), (2, "fp16"), (1, "tf32")):
        add(session, variant=name, precision=name, schedule="randomised", number=number)
    assert add(session).name == "run_5.npz"
    assert session.rows["run"].tolist() == [1, 1, 2, 1, 2]
    assert session.rows["precision"].tolist() == ["fp32", "fp16", "fp16", "tf32", "fp32"]
    assert (session.runs[0] is run, len(session.runs)) == (True, 2)
    assert np.load(session.folder / "run_1.npz")["graph_ms"].tolist() == [1.25, 1.26]


# What else a session keeps


def test_figures_texts_and_records_are_kept_and_returned(tmp_path):
    session, figure = opened(tmp_path), plt.figure(label="What is to be seen")
    record = {"é": [a_run().process, Path("a/b"), np.float64(1.5), np.arange(2), {2, 1}]}
    for name, thing in (("plot", figure), ("comparaison", "| é |"), ("runs", record)):
        assert session.keep(name, thing) is thing
    plt.close(figure)
    with Image.open(session.folder / "plot.png") as image:
        assert image.text["Description"] == "What is to be seen"
    assert (session.folder / "comparaison.md").read_text(encoding="utf-8") == "| é |"
    kept = json.loads((session.folder / "runs.json").read_text(encoding="utf-8"))["é"]
    assert kept[1:] == ["a/b", 1.5, [0, 1], [1, 2]]
    before = snapshot(tmp_path)
    for content in (math.nan, object(), {1: object()}):
        with pytest.raises((ValueError, TypeError)):
            session.keep("runs", content)
    assert snapshot(tmp_path) == before


# What the machine does


@pytest.mark.parametrize("broken", ["run_2.npz", "results.csv", "verdict.json", PUBLISHED])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_loses_nothing_and_the_same_call_works_later(
    tmp_path, monkeypatch, broken, call
):
    write_session(tmp_path, "earlier")
    session, real, done = opened(tmp_path, "now"), getattr(os, call), []
    add(session)
    before = snapshot(tmp_path)

    def full(first, *rest):
        path = os.readlink(f"/proc/self/fd/{first}") if call == "fsync" else str(rest[0])
        if broken in path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(first, *rest)

    steps = [lambda: add(session), lambda: session.keep("verdict", {}), session.complete]
    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(ResultsError, match=f"cannot write .*{broken}: No space left"):
            done.extend(step() for step in steps)
    after = snapshot(tmp_path)
    assert not [name for name in after if name.endswith(".tmp")]
    assert after[PUBLISHED] == before[PUBLISHED]
    assert len(session.rows) == len(read_results(session.folder / "results.csv"))
    for step in steps[len(done) :]:
        step()
    assert read_results(tmp_path / PUBLISHED)["run"].tolist() == [1, 2]


def kill_at(step):
    """Kill this process at its `step`-th sync or rename."""
    count = itertools.count()

    def counted(real):
        def call(*args):
            if next(count) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args)

        return call

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)


def forked(function, *args):
    """Start a function in a copy of this process; returns its pid."""
    if (pid := os.fork()) == 0:
        try:
            function(*args)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def test_killed_at_every_sync_and_rename(tmp_path):
    def killed_session(step, folder):
        kill_at(step)
        write_session(folder, "second", runs=2)

    for step in range(11 * 2 + 1):  # 11 files, each: sync, rename; the last one is not killed
        folder = tmp_path / str(step)
        write_session(folder, "first", runs=1)
        died = os.waitpid(forked(killed_session, step, folder), 0)[1]
        assert died == (signal.SIGKILL if step < 22 else 0)
        published = read_results(folder / PUBLISHED)["session"].tolist()
        state, kept = folder / "second" / "session.json", folder / "second" / "results.csv"
        complete = state.exists() and state_of(folder / "second") == "complete"
        assert published == ["first"] or (complete and published == ["second", "second"])
        assert not complete or read_results(kept)["accepted"].tolist() == ["yes", "yes"]
        assert not kept.exists() or read_results(kept)["run"].tolist() in ([1], [1, 2])
        write_session(folder, "third", runs=1)
        assert read_results(folder / PUBLISHED)["session"].tolist() == ["third"]


def test_two_sessions_at_once_lose_and_mix_nothing(tmp_path):
    def write_many():
        for _ in range(10):
            write_session(tmp_path, "")

    for pid in [forked(write_many) for _ in range(2)]:
        assert os.waitpid(pid, 0)[1] == 0
    sessions = {path.name: path for path in tmp_path.iterdir() if path.is_dir()}
    assert len(sessions) == 20
    for name, folder in sessions.items():
        kept = read_results(folder / "results.csv")
        assert (kept["run"].tolist(), set(kept["session"])) == ([1, 2, 3], {name})
    (name,) = set(read_results(tmp_path / PUBLISHED)["session"])
    assert (tmp_path / PUBLISHED).read_bytes() == (sessions[name] / "results.csv").read_bytes()
