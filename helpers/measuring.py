"""Sessions that measure at once see each other: each holds a locked file while it measures.

The lock ends with its process, however that ends, so no session is seen that is no longer there.
Containers that do not share their temporary folder do not see each other here.
"""

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import torch

FOLDER = "latency-sessions"  # in the temporary folder of the machine
_OWN = f"{os.getpid()}.{secrets.token_hex(4)}"  # a pid alone may occur twice, in two containers


def other_session(device: torch.device) -> str:
    """Say in French which other process is measuring on `device` right now, "" if none is.

    It is a contamination, not an error: both sessions go on, and both are told.
    """
    seen = sorted(
        path.name.split(".")[1]
        for path in _folder().glob(f"{_key(device)}.*")
        if _OWN not in path.name and _is_held(path)
    )
    if not seen:
        return ""
    where = "GPU" if device.type == "cuda" else "processeur"
    return f"une autre session mesure sur le même {where} (processus {', '.join(seen)})"


@contextmanager
def announced(device: torch.device) -> Iterator[None]:
    """Let other sessions see that this process measures on `device`.

    Where the temporary folder cannot be written, the measurement goes on unannounced.
    """
    name = f"{_key(device)}.{_OWN}.{secrets.token_hex(4)}"
    visible, hidden = _folder() / name, _folder() / f".{name}"
    try:
        with suppress(OSError):
            file = _locked(hidden)  # noqa: F841, the lock lasts as long as the file is open
            hidden.rename(visible)  # never seen unlocked
        yield
    finally:
        for path in (visible, hidden):  # the second after an interruption only
            with suppress(OSError):
                path.unlink()


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / FOLDER


def _key(device: torch.device) -> str:
    if device.type == "cuda":
        return f"gpu-{torch.cuda.get_device_properties(device).uuid}"
    return device.type


def _locked(path: Path) -> IO:
    path.parent.mkdir(exist_ok=True)
    with suppress(PermissionError):  # another user's, who has done it
        path.parent.chmod(0o1777)
    file = open(path, "x", encoding="utf-8")  # noqa: SIM115, the caller holds it
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def _is_held(path: Path) -> bool:
    """Is the process that created this file alive? If not, the file is removed."""
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # gone meanwhile
        return False
    with suppress(OSError):
        path.unlink()
    return False
