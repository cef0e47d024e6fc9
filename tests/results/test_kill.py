"""kill -9 of papermill and of its kernel, at random moments of a session."""

import random
import time

import pytest
from sessions import (
    RUNS,
    check_published,
    check_session,
    check_whole,
    finish,
    kill,
    start,
    state_of,
    two_at_once,
)

from helpers.results import ResultsError, open_session


def killed_session(
    results_dir, name: str, victim: str, after_s: float, publishers: set, opened: bool
) -> None:
    """Kill one session; check that nothing is lost or half-written and that the next may start.

    `after_s` counts from the start, or, with `opened`, from when the session has its folder.
    """
    published_before = check_published(results_dir)
    process = start(results_dir, name)
    while opened and process.poll() is None and state_of(results_dir / name) == "nothing":
        time.sleep(0.02)
    time.sleep(after_s)
    finished = process.poll() is not None
    kill(process, victim)
    folder, state = results_dir / name, "nothing"
    if results_dir.exists():
        check_whole(results_dir)
    if folder.exists():
        check_session(folder)
        state = state_of(folder)
    published = check_published(results_dir)
    assert published in (published_before, name)
    assert published != name or state == "complete"
    assert state == "complete" or not finished
    after = open_session(results_dir, f"{name}-next")  # the next one starts, under a new name ...
    if state == "complete":
        publishers.add(name)
    if state != "nothing":
        with pytest.raises(ResultsError, match="already holds results"):
            open_session(results_dir, name)  # ... and never goes on under the same one
    assert state_of(after.folder) == "running"


def random_kills(results_dir, whole: str, lasts_s: float, count: int, seed: int) -> None:
    """Kill `count` sessions at random moments, beside one that is whole and must remain so."""
    chance, publishers = random.Random(seed), {whole}
    for index in range(count):
        victim = ("papermill", "kernel")[index % 2]
        opened = index % 8 > 1  # most moments in the part that writes
        after_s = chance.uniform(0, lasts_s * (0.7 if opened else 1))
        killed_session(results_dir, f"k{index}", victim, after_s, publishers, opened)
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
