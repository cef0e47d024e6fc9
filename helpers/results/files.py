"""Files of results: written whole or not at all, read only where they are regular and bounded."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

LOCK = ".results.lock"
LOCK_TIMEOUT_S = 60.0
LARGEST_FILE = 128 * 2**20  # bytes; a session of an H100's day takes less than 1 % of it
ELSEWHERE = "`make benchmark RESULTS=FOLDER`, or `-p results_dir FOLDER` with papermill"


class ResultsError(RuntimeError):
    """Results cannot be written or read; those written before are untouched."""


def write_file(path: Path, content: bytes) -> Path:
    """Replace `path` in one step: whoever reads it finds the old file or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with explained(path):
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return path


def sync_folder(folder: Path) -> None:
    """Make a rename outlive a power failure, on file systems that can: it has happened already."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def read_file(path: str | Path, most: int = LARGEST_FILE) -> bytes:
    """Read a regular file of at most `most` bytes; a FIFO is refused, never waited for.

    Raises
    ------
    ResultsError
        It cannot be read, is no regular file, or is larger.
    """
    with explained(path, "read"):
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ResultsError(f"cannot read {path}: it is no regular file; move it away")
        content = None
        if status.st_size <= most:
            with open(path, "rb", opener=_without_waiting) as file:
                content = file.read(most + 1)
    if content is None or len(content) > most:
        raise ResultsError(f"cannot read {path}: it is larger than {most:,} bytes")
    return content


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def explained(path: str | Path, action: str = "write") -> Iterator[None]:
    """Turn an error of the file system into one that names the file and a remedy."""
    try:
        yield
    except OSError as error:
        remedy = "is it there, and yours to read?"
        if action == "write":
            remedy = f"free space, make it writable, or choose another folder ({ELSEWHERE})"
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
