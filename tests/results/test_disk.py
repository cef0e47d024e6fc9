"""Disks full, read-only or missing: one message, earlier results untouched, exit code 1."""

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from result_rows import SAMPLES, row, snapshot
from sessions import check_whole, start

from helpers.results import PUBLISHED, ResultsError, load_samples, open_session, read_results


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MiB; it needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Take all the space that is left."""
    path = folder / "filler"
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return path


def complete(results_dir, name, **changes):
    session = open_session(results_dir, name)
    session.add_run(row(name, **changes), SAMPLES)
    session.complete()


def a_run(session):
    session.add_run(row(session.name, run=2), {"host_ms": np.random.default_rng(0).random(20_000)})


def an_environment(session):
    session.save_environment({"text": "x" * 100_000})


def a_figure(session):
    figure = plt.figure(figsize=(3, 3))
    figure.add_subplot().imshow(np.random.default_rng(0).random((500, 500)))
    session.save_figure(figure, "noise")
    plt.close(figure)


@pytest.mark.parametrize("write", [a_run, an_environment, a_figure])
def test_a_full_disk_loses_nothing_and_the_same_call_works_once_there_is_space(small_disk, write):
    complete(small_disk, "earlier")
    session = open_session(small_disk, "now")
    session.add_run(row("now"), SAMPLES)
    before = snapshot(small_disk)
    filler = fill(small_disk)
    with pytest.raises(ResultsError, match="No space left"):
        write(session)
    filler.unlink()
    assert snapshot(small_disk) == before  # no temporary file either
    write(session)
    assert len(snapshot(small_disk)) == len(before) + 1
    session.complete()
    assert set(read_results(small_disk / PUBLISHED)["session"]) == {"now"}


def test_a_disk_that_becomes_read_only(small_disk):
    complete(small_disk, "earlier")
    session = open_session(small_disk, "now")
    before = snapshot(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for call in (
        lambda: session.add_run(row("now"), SAMPLES),
        lambda: session.save_json("verdict", {}),
        lambda: open_session(small_disk, "next"),
    ):
        with pytest.raises(
            ResultsError, match=r"Read-only.*make benchmark RESULTS=.*-p results_dir"
        ):
            call()
    assert snapshot(small_disk) == before
    assert load_samples(small_disk / "earlier/run_1.npz").keys() == SAMPLES.keys()


def test_a_session_folder_that_vanishes(tmp_path):
    complete(tmp_path, "earlier")
    session = open_session(tmp_path, "now")
    shutil.rmtree(session.folder)
    for call in (
        lambda: session.add_run(row("now"), SAMPLES),
        lambda: session.save_json("verdict", {}),
    ):
        with pytest.raises(ResultsError, match=r"cannot write .*now"):
            call()
    assert set(read_results(tmp_path / PUBLISHED)["session"]) == {"earlier"}
    check_whole(tmp_path)


@pytest.mark.parametrize("name", ["run_1.npz", "results.csv", "verdict.json"])
def test_a_folder_where_a_file_should_be(tmp_path, name):
    session = open_session(tmp_path, "now")
    (session.folder / name).mkdir()
    calls = {"verdict.json": lambda: session.save_json("verdict", {})}
    with pytest.raises(ResultsError, match=rf"cannot write .*{name}"):
        calls.get(name, lambda: session.add_run(row("now"), SAMPLES))()
    (session.folder / name).rmdir()
    session.add_run(row("now"), SAMPLES)
    session.complete()


@pytest.mark.parametrize("wrong", ["csv", pytest.param("file", marks=pytest.mark.slow)])
def test_the_notebook_says_it_in_its_last_line_and_exits_with_1(tmp_path, wrong):
    """Of all that can be wrong: a published CSV that is not ours, a file for the folder."""
    results_dir = tmp_path / "results"
    if wrong == "csv":
        results_dir.mkdir()
        (results_dir / PUBLISHED).write_text("name;value\nmine;1\n")
    else:
        results_dir.write_text("not a folder")
    before = snapshot(tmp_path)
    process = start(results_dir, "stopped")
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    last = stderr.strip().splitlines()[-1]
    assert "ResultsError" in last
    assert {"csv": "move it away", "file": "File exists"}[wrong] in last
    (tmp_path / "stopped.ipynb").unlink()
    assert snapshot(tmp_path) == before
