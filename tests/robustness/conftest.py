"""What the suite has shown is printed at its end, one line for each test that tells."""

import time
from pathlib import Path
from typing import NamedTuple

import pytest
from sessions import two_at_once

TOLD = pytest.StashKey()


class TwoSessions(NamedTuple):
    folder: Path
    lasts_s: float


@pytest.fixture(scope="session")
def two_sessions(tmp_path_factory) -> TwoSessions:
    """Two whole sessions in one results folder, run at once; what several tests begin with."""
    folder, begun = tmp_path_factory.mktemp("two") / "results", time.monotonic()
    two_at_once(folder)
    return TwoSessions(folder, time.monotonic() - begun)


@pytest.fixture
def tell(request):
    """Keep a line for the summary."""
    return request.config.stash.setdefault(TOLD, []).append


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(TOLD, []):
        terminalreporter.write_line(f"shown: {line}")
