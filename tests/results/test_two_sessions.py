"""Two papermill sessions at once in one results folder."""

import pytest
from sessions import two_at_once


def test_two_sessions_at_once(two_sessions, tell):
    tell(f"2 sessions at once: no row lost or mixed; {two_sessions.told} of 2 told of the other")


@pytest.mark.slow
def test_two_sessions_at_once_many_times(tmp_path, tell):
    rounds = 10
    seen = [two_at_once(tmp_path / "results", index) for index in range(rounds)]
    assert sum(seen) >= rounds  # they overlap only in part, and not each time
    tell(
        f"2 sessions at once, {rounds} times: no row lost or mixed; "
        f"{sum(seen)} of {2 * rounds} told of the other"
    )
