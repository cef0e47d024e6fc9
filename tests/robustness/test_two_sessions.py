"""Two papermill sessions at once in one results folder."""

import pytest
from sessions import two_at_once


def test_two_sessions_at_once(two_sessions, tell):
    tell("2 sessions at once: no row lost or mixed")


@pytest.mark.slow
def test_two_sessions_at_once_many_times(tmp_path, tell):
    for index in range(10):
        two_at_once(tmp_path / "results", index)
    tell("2 sessions at once, 10 times: no row lost or mixed")
