"""The machine that several tests judge."""

import pytest

from helpers import environment
from helpers.environment.compile import CompileCheck


@pytest.fixture(scope="module")
def machine():
    """This machine, on the CPU, with the compiler's answer given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "check_compile_once", lambda device: CompileCheck(True, ""))
        return environment.look("cpu")


@pytest.fixture
def checks_of(machine):
    """Make the checks, by code, of this machine's record with other sections."""

    def make(**sections):
        facts = {name: machine.facts[name] | sections.pop(name, {}) for name in ("cuda", "cpu")}
        facts["software"] = machine.facts["software"] | sections.pop("software", {})
        return {c.code: c for c in environment.check(machine.facts | facts | sections)}

    return make
