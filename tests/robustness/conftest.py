"""What the suite has shown is printed at its end, one line for each test that tells."""

import pytest

TOLD = pytest.StashKey()


@pytest.fixture
def tell(request):
    """Keep a line for the summary."""
    return request.config.stash.setdefault(TOLD, []).append


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(TOLD, []):
        terminalreporter.write_line(f"shown: {line}")
