"""Step 1: what machine this is, and whether it can do the day's work."""

from dataclasses import asdict

from helpers.display.machine import check_environment, environment_table, fixed_conditions
from helpers.environment.compile import CompileCheck, check_compile, check_compile_once
from helpers.environment.device import DeviceChoice, choose_device
from helpers.environment.facts import (
    Check,
    Reader,
    collect_cpu,
    collect_git,
    collect_software,
    collect_switches,
    collect_system,
    collect_variables,
    find_other_code,
)
from helpers.environment.gpu import collect_gpu

__all__ = [
    "Check",
    "CompileCheck",
    "DeviceChoice",
    "check_compile",
    "check_environment",
    "choose_device",
    "collect_environment",
    "environment_table",
    "fixed_conditions",
]


def collect_environment(choice: DeviceChoice) -> dict:
    """Record the machine and the software of a session.

    Parameters
    ----------
    choice
        What `choose_device` returned.

    Returns
    -------
    dict
        Nested and ready for JSON; a value that cannot be seen is None, and `unreadable` says why.
    """
    read = Reader()
    compiling = read("torch.compile", check_compile_once, choice.device)
    return {
        "device": str(choice.device),
        "device_reason": choice.reason,
        "software": collect_software(read),
        "variables": collect_variables(),
        "cuda": choice.cuda,
        "gpu": collect_gpu(choice.device, read),
        "cpu": collect_cpu(read),
        "system": collect_system(read),
        "git": collect_git(),
        "other_code": read("other_code", find_other_code),
        "switches": collect_switches(read),
        "compile": asdict(compiling or CompileCheck(False, read.failed["torch.compile"])),
        "unreadable": read.failed,
    }
