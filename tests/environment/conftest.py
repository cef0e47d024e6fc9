"""The machine that several tests judge."""

import pytest

from helpers import environment


@pytest.fixture
def compiles(monkeypatch):
    """The compiler's answer, given."""
    monkeypatch.setattr(environment, "compile_problem", lambda device: "")


@pytest.fixture
def machine(compiles):
    """This machine, on the CPU."""
    return environment.look("cpu")
