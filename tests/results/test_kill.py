"""The notebook's sessions: killed at random moments, two at once, refused in its last line."""

import random
import time

import pytest
from result_rows import opened, snapshot, state_of
from sessions import (
    RUNS,
    check_published,
    check_session,
    check_whole,
    finish,
    kill,
    start,
    two_at_once,
)

from helpers.results import PUBLISHED, ResultsError


def killed_session(
    results_dir, name: str, victim: str, after_s: float, opened_already: bool
) -> str:
    """Kill one session; check that nothing is lost or half-written; return what its state says.

    `after_s` counts from the start, or, with `opened_already`, from when the session has its folder.
    """
    published_before, state = check_published(results_dir), results_dir / name / "session.json"
    process = start(results_dir, name)
    while opened_already and process.poll() is None and not state.exists():
        time.sleep(0.02)
    time.sleep(after_s)
    kill(process, victim)
    check_whole(results_dir)
    told = state_of(state.parent) if state.exists() else "nothing"
    if state.parent.exists():
        check_session(state.parent)
    assert check_published(results_dir) in (published_before, name if told == "complete" else "")
    opened(results_dir, f"{name}-next")  # the next one starts, under a new name ...
    if told != "nothing":
        with pytest.raises(ResultsError, match="already holds results"):
            opened(results_dir, name)  # ... and never goes on under the same one
    return told


def random_kills(results_dir, whole: str, lasts_s: float, count: int, seed: int) -> None:
    """Kill `count` sessions at random moments, beside one that is whole and must remain so."""
    chance, publishers = random.Random(seed), {whole}
    for index in range(count):
        victim = ("papermill", "kernel")[index % 2]
        writing = index % 8 > 1  # most moments in the part that writes
        after_s = chance.uniform(0, lasts_s * (0.7 if writing else 1))
        if killed_session(results_dir, f"k{index}", victim, after_s, writing) == "complete":
            publishers.add(f"k{index}")
        assert check_session(results_dir / whole) == RUNS  # what was there is still there
        assert check_published(results_dir) in publishers


def test_two_sessions_at_once_then_two_killed(tmp_path):
    results_dir, begun = tmp_path / "results", time.monotonic()
    two_at_once(results_dir)
    lasts_s = (time.monotonic() - begun) / 2
    random_kills(results_dir, check_published(results_dir), lasts_s, 2, seed=5)


@pytest.mark.slow
def test_killed_at_many_random_moments(tmp_path):
    results_dir, begun = tmp_path / "results", time.monotonic()
    finish(start(results_dir, "whole"))
    random_kills(results_dir, "whole", time.monotonic() - begun, 32, seed=1)
    finish(start(results_dir, "last"))
    assert check_published(results_dir) == "last"
    check_whole(results_dir)


@pytest.mark.parametrize("wrong", ["csv", pytest.param("file", marks=pytest.mark.slow)])
def test_the_notebook_says_in_its_last_line_why_it_cannot_write(tmp_path, wrong):
    """Of all that can be wrong: a published CSV that is not ours, a file for the folder."""
    results_dir = tmp_path / "results"
    if wrong == "csv":
        results_dir.mkdir()
        (results_dir / PUBLISHED).write_text("name;value\nmine;1\n")
    else:
        results_dir.write_text("not a folder")
    before, process = snapshot(tmp_path), start(results_dir, "stopped")
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    last = stderr.strip().splitlines()[-1]
    assert "ResultsError" in last
    assert {"csv": "move it away", "file": "cannot write"}[wrong] in last
    (tmp_path / "stopped.ipynb").unlink()
    assert snapshot(tmp_path) == before
