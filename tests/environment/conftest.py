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


@pytest.fixture
def checks_of(machine):
    """Make the checks, by code, of this machine's record with other sections."""

    def make(**sections):
        facts = {
            name: machine.facts[name] | sections.pop(name, {})
            for name in ("cuda", "cpu", "software")
        }
        return {c.code: c for c in environment.check(machine.facts | facts | sections)}

    return make
