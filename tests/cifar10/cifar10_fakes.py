"""A set of 120 images in every form CIFAR-10 is published in, and a loopback server for it."""

import hashlib
import io
import json
import pickle
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10

from helpers.cifar10 import sources

PYTHON, SPRITES = sources.OFFICIAL, sources.NPM


def tar_gz(members: dict[str, bytes | str]) -> bytes:
    """An archive of files (bytes) and symbolic links (str, their target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname, content = tarfile.SYMTYPE, content, b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class FakeCifar10:
    """The files of a small set, whose hashes take the place of the official ones."""

    def __init__(self, monkeypatch):
        rng = np.random.default_rng(7)
        self.images = rng.integers(0, 256, (120, 32, 32, 3), dtype=np.uint8)
        self.labels = np.arange(120) % 10
        self.forms = {PYTHON: {}, SPRITES: {}}
        for i, name in enumerate(sources.BATCHES):
            part = slice(20 * i, 20 * i + 20)
            planes = self.images[part].transpose(0, 3, 1, 2).reshape(20, 3072)
            batch = pickle.dumps({b"labels": self.labels[part].tolist(), b"data": planes})
            self.forms[PYTHON][name] = batch
            monkeypatch.setitem(sources.BATCHES, name, hashlib.md5(batch).hexdigest())
            png = io.BytesIO()
            Image.fromarray(self.images[part].reshape(20, 1024, 3)).save(png, "PNG")
            self.forms[SPRITES][f"{name}.png"] = png.getvalue()
        for name, part in (("train", slice(100)), ("test", slice(100, 120))):
            labels = json.dumps(self.labels[part].tolist()).encode()
            self.forms[SPRITES][f"{name}_lables.json"] = labels
        pairs = [list(pair) for pair in sources.BATCHES.items()]
        monkeypatch.setattr(CIFAR10, "train_list", pairs[:5])
        monkeypatch.setattr(CIFAR10, "test_list", pairs[5:])
        self.arrays = self.images[:100], self.labels[:100], self.images[100:], self.labels[100:]
        for name, digest in sources.fingerprint(*self.arrays).items():
            monkeypatch.setitem(sources.FINGERPRINT, name, digest)

    def is_in(self, arrays) -> None:
        for found, expected in zip(arrays, self.arrays, strict=True):
            np.testing.assert_array_equal(found, expected, strict=True)
            assert found.flags.c_contiguous
            assert found.flags.writeable  # torch warns of others

    def archive(self, form: str) -> bytes:
        return tar_gz({f"{form}/{name}": data for name, data in self.forms[form].items()})

    def write(self, folder: Path, form: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.forms[form].items():
            (folder / name).write_bytes(content)
        return folder


@contextmanager
def serving(answer):
    """A loopback server that lets `answer(handler)` answer each GET; yields (url, paths asked)."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            answer(self)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz", asked
        finally:
            server.shutdown()


def whole(content: bytes, announced: int | None = None):
    """An answer: `content`, announced as having its own or another length."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(announced or len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer
