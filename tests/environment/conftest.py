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
        for name in {"cuda", "cpu", "software"} & sections.keys():
            sections[name] = machine.facts[name] | sections[name]
        return {check.code: check for check in environment.check(machine.facts | sections)}

    return make
