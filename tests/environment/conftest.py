"""The record that several tests judge."""

import pytest

from helpers import environment
from helpers.environment import (
    CompileCheck,
    choose_device,
    collect_environment,
)


@pytest.fixture(scope="module")
def env():
    """The real record of this machine, on the CPU, with the compiler's answer given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "check_compile_once", lambda device: CompileCheck(True, ""))
        return collect_environment(choose_device("cpu"))
