"""CIFAR-10 from files: what is right is read, what is wrong is named, and never run or followed."""

import gzip
import os
import pickle
import resource
import tarfile

import psutil
import pytest
from cifar10_fakes import PYTHON, SPRITES, FakeCifar10, tar_gz

from helpers import cifar10
from helpers.cifar10 import DataError, load
from helpers.cifar10.sources import ARCHIVES

FORMS = pytest.mark.parametrize("form", [PYTHON, SPRITES])


@pytest.fixture
def fake(monkeypatch):
    """The small set; the network is not asked."""
    monkeypatch.setattr(cifar10, "fetch", None)
    return FakeCifar10(monkeypatch)


def refused(data_dir, named):
    for dataset in ("auto", "cifar10"):
        with pytest.raises(DataError) as caught:
            load(data_dir, dataset)
        assert named in str(caught.value)


@FORMS
@pytest.mark.parametrize("place", ["folder", "data_dir itself", "archive"])
def test_files_at_hand_are_used(fake, tmp_path, form, place):
    if place == "archive":
        (tmp_path / ARCHIVES[form]).write_bytes(fake.archive(form))
    else:
        fake.write(tmp_path / form if place == "folder" else tmp_path, form)
    before = sorted(tmp_path.rglob("*"))
    data = load(tmp_path)
    assert (data.name, data.fingerprint) == ("cifar10", cifar10.FINGERPRINT)
    fake.is_in((data.train_images, data.train_labels, data.test_images, data.test_labels))
    assert sorted(tmp_path.rglob("*")) == before


def damaged(path, content, damage):
    """attack A2 (pipe), attack A14 (large: 20 GB that hold no data)"""
    middle = len(content) // 2
    path.unlink(missing_ok=True)
    if damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "link":
        path.symlink_to("/dev/zero")
    elif damage != "missing":
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"bit": flipped, "truncated": content[:middle]}.get(damage, b""))
        if damage == "large":
            os.truncate(path, 20_000_000_000)


DAMAGES = pytest.mark.parametrize("damage", ["bit", "truncated", "large", "folder", "pipe", "link"])


@FORMS
@DAMAGES
def test_what_is_wrong_is_named(fake, tmp_path, form, damage):
    (tmp_path / "files").mkdir()
    (tmp_path / "archive").mkdir()
    folder = fake.write(tmp_path / "files" / form, form)
    path = next(path for path in folder.iterdir() if "data_batch_4" in path.name)
    damaged(path, path.read_bytes(), damage)
    parsed = form == SPRITES and damage in ("bit", "truncated")  # no pickle: first parsed
    refused(tmp_path / "files", str(folder if parsed else path))
    damaged(tmp_path / "archive" / ARCHIVES[form], fake.archive(form), damage)
    refused(tmp_path / "archive", ARCHIVES[form])


@FORMS
def test_swapped_and_missing_files_are_named(fake, tmp_path, form):
    files = fake.forms[form]
    first, second, *_ = files
    files[first], files[second] = files[second], files[first]
    folder = fake.write(tmp_path / form, form)
    refused(tmp_path, form)
    (folder / first).unlink()
    refused(tmp_path, first)


class Bomb:
    def __reduce__(self):
        return (open, ("went_off", "w"))


def test_a_pickle_that_calls_code_is_not_opened(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake.forms[PYTHON]["test_batch"] = pickle.dumps(Bomb())
    fake.write(tmp_path / PYTHON, PYTHON)
    refused(tmp_path, "test_batch")
    assert not (tmp_path / "went_off").exists()


def header(kind: bytes) -> bytes:
    info = tarfile.TarInfo(f"{PYTHON}/data_batch_1")
    info.type, info.size = kind, 5 << 30
    return info.tobuf(tarfile.GNU_FORMAT)


UNPACKED = [header(tarfile.REGTYPE), header(tarfile.XHDTYPE), bytes(300_000_000)]


@pytest.mark.parametrize("content", UNPACKED, ids=["member", "pax", "bomb"])
def test_sizes_that_an_archive_announces_are_not_believed(fake, tmp_path, content):
    """attack A14: archive headers of 5 GB; what small compressed data unpack to"""
    (tmp_path / ARCHIVES[PYTHON]).write_bytes(gzip.compress(content, 1))
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (1 << 30), hard))
    try:
        refused(tmp_path, ARCHIVES[PYTHON])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@FORMS
@pytest.mark.parametrize("other", ["../escaped", "link"])
def test_an_archive_writes_nothing_outside(fake, tmp_path, form, other):
    members = {f"{form}/{name}": content for name, content in fake.forms[form].items()}
    members |= {next(iter(members)): "/etc/passwd"} if other == "link" else {other: b"x"}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ARCHIVES[form]).write_bytes(tar_gz(members))
    refused(tmp_path / "data", ARCHIVES[form])
    assert [path.name for path in tmp_path.rglob("*")] == ["data", ARCHIVES[form]]


def test_a_data_dir_that_cannot_be_listed_is_named(fake, tmp_path, monkeypatch):
    """case 19: a file, or a folder of mode 0700 of another user (mocked: root reads everything)"""
    (tmp_path / "data").write_text("")
    refused(tmp_path / "data", str(tmp_path / "data"))
    closed = PermissionError(13, "Permission denied", str(tmp_path))
    monkeypatch.setattr(os, "listdir", lambda _: (_ for _ in ()).throw(closed))
    refused(tmp_path, str(tmp_path))
