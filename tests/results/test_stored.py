"""A session's folder from anywhere: read whole, or refused with the file and the field named."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
from result_rows import opened, write_session

from helpers.results import (
    COLUMNS,
    PUBLISHED,
    ResultsError,
    load_samples,
    read_session,
)
from helpers.results.files import read_file


@pytest.fixture
def folder(tmp_path):
    return write_session(tmp_path, "s", model="resnet18")


def test_a_session_is_read_back(folder):
    (folder / "comparaison.md").write_text("| é |", encoding="utf-8")
    read = read_session(folder)
    assert (read.name, read.dataset, read.accepted, read.outcome) == ("s", "cifar10", True, "yes")
    assert read.sentences == ("ACCEPTÉ",)
    assert read.environment["gpu"]["uuid"] == "GPU-1"
    assert read.environment["git"] == {"commit": None}
    assert (read.parameters["model"], read.parameters["runs"]) == ("resnet18", 3)
    assert read.comparison == "| é |"
    assert read.validation_rows["run"].tolist() == [1, 2, 3]
    assert read.samples(2)["host_ms"].size == 100
    assert "run_1.npz" in read.files


def test_a_session_of_before_is_read_as_well(folder, request):
    (folder / "parameters.json").unlink()
    assert read_session(folder).parameters == {"model": None, "train_epochs": 0}
    accepted = read_session(request.config.rootpath / "results" / "reference_h100")
    assert accepted.outcome == "yes"
    assert [accepted.samples(index)["gpu_ms"].size for index in range(3)] == [500] * 3


NOT_JSON = {
    "nested": "[" * 100_000,
    "empty": "",
    "not UTF-8": b"\xff\xfe",
    "lone surrogate": '{"sentences": ["\\ud800"]}',
    "huge": b" " * (128 * 2**20 + 1),
    "list": "[]",
    "null": "null",
}
FIELDS = [
    ("session.json", {"state": "running"}, "'running', not complete"),
    ("verdict.json", {"sentences": []}, "sentences"),
    ("verdict.json", {"sentences": ["x"], "accepted": "yes"}, "accepted"),
    ("environment.json", {"software": {}, "cuda": {}, "cpu": {}, "gpu": {}}, r"gpu\.name"),
    ("environment.json", {"software": {"torch": 2}, "cuda": {}, "cpu": {}, "gpu": None}, "torch"),
    ("parameters.json", {"train_epochs": True}, "train_epochs"),
]


@pytest.mark.parametrize("name", ["session", "verdict", "environment", "parameters"])
@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_json_of_the_wrong_shape_is_named(folder, name, content):
    """Attack A8."""
    path = folder / f"{name}.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ResultsError, match=rf"{name}\.json"):
        read_session(folder)


@pytest.mark.parametrize(("name", "content", "field"), FIELDS)
def test_a_field_of_the_wrong_shape_is_named(folder, name, content, field):
    """Attack A8."""
    (folder / name).write_text(json.dumps(content), encoding="utf8")
    with pytest.raises(ResultsError, match=rf"({name}: )?.*{field}"):
        read_session(folder)


def test_what_is_no_session_is_named(folder, tmp_path):
    with pytest.raises(ResultsError, match=r"session\.json"):
        read_session(tmp_path / "nothing")
    for content in (b"\xff", ",".join(COLUMNS).encode() + b"\n"):
        (folder / "results.csv").write_bytes(content)
        with pytest.raises(ResultsError, match=r"results\.csv"):
            read_session(folder)


@pytest.mark.parametrize(
    "change", [lambda ms: ms[:0], lambda ms: ms * 1.01, lambda ms: ms * np.nan]
)
def test_samples_that_do_not_give_their_row_are_refused(folder, change):
    kept = load_samples(folder / "run_1.npz")
    for clock in ("host_ms", "gpu_ms"):
        np.savez_compressed(folder / "run_1.npz", **kept | {clock: change(kept[clock])})
        with pytest.raises(ResultsError, match=rf"run_1\.npz: {clock}"):
            read_session(folder).samples(0)


def npz(**members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return packed.getvalue()


def npy(shape, descr="<f8", values=b""):
    header = io.BytesIO()
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue() + values


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


ARCHIVES = {
    "nothing": b"",
    "no archive": b"garbage",
    "no member": npz(),
    "8 TB announced": npz(host_ms=npy((10**12,))),
    "objects": npz(host_ms=npy((1,), "|O", b"\x80\x04N.")),
    "flipped bits": flipped(npz(host_ms=npy((500,), values=np.random.default_rng(0).bytes(4000)))),
    "a bomb": npz(**{f"m{i}": npy((2**23,), "|u1", bytes(2**23)) for i in range(65)}),
    "no array": npz(host_ms=b"text"),
}


@pytest.mark.parametrize("content", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_archives_of_the_wrong_shape_are_named(folder, content):
    """Attack A8: nothing is unpickled, and no size is believed."""
    (folder / "run_1.npz").write_bytes(content)
    with pytest.raises(ResultsError, match=r"run_1\.npz"):
        read_session(folder).samples(0)


@pytest.mark.parametrize("name", ["session.json", "results.csv", "comparaison.md", "run_1.npz"])
def test_a_fifo_is_refused_and_never_waited_for(folder, name):
    """Attack A2."""
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ResultsError, match=rf"{name}: no regular file"):
        read_session(folder).samples(0)
    (folder.parent / PUBLISHED).unlink()
    os.mkfifo(folder.parent / PUBLISHED)
    with pytest.raises(ResultsError, match=r"no regular file.*move it away"):
        opened(folder.parent, "next")


def test_a_file_is_not_read_further_than_asked(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert read_file(tmp_path / "x", 5) == b"12345"
    with pytest.raises(ResultsError, match="at most 4 bytes"):
        read_file(tmp_path / "x", 4)
