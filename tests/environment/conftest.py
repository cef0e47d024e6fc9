"""The machine that several tests judge."""

import pytest

from helpers import environment
from helpers.environment.compile import CompileCheck


@pytest.fixture
def compiles(monkeypatch):
    """The compiler's answer, given."""
    monkeypatch.setattr(environment, "check_compile_once", lambda device: CompileCheck(True, ""))


@pytest.fixture
def machine(compiles):
    """This machine, on the CPU."""
    return environment.look("cpu")
