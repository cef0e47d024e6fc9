"""Files of results: written in one step, under a lock, with one message when that fails.

A file is written beside its name, synced and renamed: whoever reads it, at any moment, finds the
old one or the new one, whole.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

LOCK = ".results.lock"
LOCK_TIMEOUT_S = 60.0

_ELSEWHERE = "choose another folder with `-p results_dir FOLDER`"
_REMEDIES = {
    errno.ENOSPC: "free some disk space and run this cell again",
    errno.EDQUOT: "free some disk space and run this cell again",
    errno.EACCES: f"make it writable, or {_ELSEWHERE}",
    errno.EPERM: f"make it writable, or {_ELSEWHERE}",
    errno.EROFS: _ELSEWHERE,
    errno.EEXIST: f"a file stands where a folder is needed: move it away, or {_ELSEWHERE}",
    errno.ENOTDIR: f"a file stands where a folder is needed: move it away, or {_ELSEWHERE}",
    errno.EISDIR: "a file is needed there: move the folder away",
}


class ResultsError(RuntimeError):
    """Results cannot be written or read; those written before are untouched."""


def write_file(path: Path, content: bytes) -> Path:
    """Replace `path` in one step: temporary file in its folder, fsync, rename, fsync the folder."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with explained(path):
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # else a power failure may forget the rename
        finally:
            os.close(folder)
    return path


@contextmanager
def explained(path: Path, action: str = "write") -> Iterator[None]:
    """Turn an error of the file system into one message with a remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno, "check the path and the disk")
        raise ResultsError(
            f"cannot {action} {path}: {error.strerror or error}; {remedy}"
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a results folder, shared by all sessions in it."""
    lock = filelock.FileLock(folder / LOCK)
    with explained(folder / LOCK):
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S)
        except filelock.Timeout:
            raise ResultsError(
                f"another session has held {folder / LOCK} for {LOCK_TIMEOUT_S:g} s: end it if it "
                "is suspended, then run this cell again"
            ) from None
    try:
        yield
    finally:
        lock.release()
