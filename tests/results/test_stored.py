"""A session's folder from anywhere: read whole, or refused with the file and the field named."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
from stored_session import session

from helpers.results import (
    COLUMNS,
    PUBLISHED,
    ResultsError,
    csv_text,
    load_samples,
    open_session,
    read_results,
    read_session,
)
from helpers.results.files import read_file
from helpers.results.table import from_csv


@pytest.fixture
def folder(tmp_path):
    return session(tmp_path, "s", model="resnet18")


def test_a_session_is_read_back(folder):
    read = read_session(folder)
    assert (read.name, read.dataset, read.accepted) == ("s", "synthetic", True)
    assert read.sentences == ("ACCEPTÉ",)
    assert read.environment["gpu"]["uuid"] == "GPU-1"
    assert read.environment["git"] == {"commit": None}
    assert read.parameters == {"model": "resnet18", "train_epochs": 0}
    assert read.samples(2)["host_ms"].size == 60
    assert "run_1.npz" in read.files


NOT_JSON = {
    "nested": "[" * 100_000,
    "empty": "",
    "not UTF-8": b"\xff\xfe",
    "lone surrogate": '{"sentences": ["\\ud800"]}',
    "NaN": '{"state": NaN}',
    "huge": b" " * (128 * 2**20 + 1),
}
SHAPES = {"list": "[]", "null": "null", "number": "7", "text": '"x"'}
FIELDS = [
    ("session.json", {"state": ["complete"]}, "state"),
    ("session.json", {}, "state"),
    ("session.json", {"state": "running"}, "'running', not complete"),
    ("verdict.json", {"sentences": "ACCEPTÉ"}, "sentences"),
    ("verdict.json", {"sentences": []}, "sentences"),
    ("verdict.json", {"sentences": [["x"]]}, "sentences"),
    ("verdict.json", {"sentences": ["x"], "accepted": "yes"}, "accepted"),
    ("environment.json", {"gpu": None}, "software"),
    ("environment.json", {"software": {}, "cuda": {}, "cpu": {}, "gpu": {}}, r"gpu\.name"),
    ("environment.json", {"software": {"torch": 2}, "cuda": {}, "cpu": {}, "gpu": None}, "torch"),
    ("environment.json", {"software": {}, "cuda": {}, "cpu": {}, "gpu": []}, "gpu"),
    ("parameters.json", {"model": 3}, "model"),
    ("parameters.json", {"train_epochs": "many"}, "train_epochs"),
    ("parameters.json", {"train_epochs": True}, "train_epochs"),
]


@pytest.mark.parametrize("name", ["session", "verdict", "environment", "parameters"])
@pytest.mark.parametrize("content", (NOT_JSON | SHAPES).values(), ids=(NOT_JSON | SHAPES).keys())
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


@pytest.mark.parametrize("content", [b"", b"\xff", ",".join(COLUMNS).encode() + b"\n", b"a,b\n"])
def test_rows_of_the_wrong_shape_are_named(folder, content):
    """Attack A8: header only among them."""
    (folder / "results.csv").write_bytes(content)
    with pytest.raises(ResultsError, match=r"results\.csv"):
        read_session(folder)


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
    "negative shape": npz(host_ms=npy((-1,))),
    "objects": npz(host_ms=npy((1,), "|O", b"\x80\x04N.")),
    "texts": npz(host_ms=npy((1,), "<U1", b"x\0\0\0")),
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


@pytest.mark.parametrize("name", ["session.json", "verdict.json", "results.csv", "comparaison.md"])
def test_a_fifo_is_refused_and_never_waited_for(folder, name):
    """Attack A2."""
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ResultsError, match=rf"{name}: it is no regular file"):
        read_session(folder)


def test_a_fifo_as_samples_or_published_csv(folder):
    """Attack A2."""
    (folder / "run_1.npz").unlink()
    os.mkfifo(folder / "run_1.npz")
    with pytest.raises(ResultsError, match="no regular file"):
        load_samples(folder / "run_1.npz")
    (folder.parent / PUBLISHED).unlink()
    os.mkfifo(folder.parent / PUBLISHED)
    with pytest.raises(ResultsError, match=r"no regular file.*move it away"):
        open_session(folder.parent, "next")


def test_a_file_that_grows_is_not_read_further(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    with pytest.raises(ResultsError, match="larger than 4 bytes"):
        read_file(tmp_path / "x", 4)


def test_a_folder_that_cannot_be_synced_ends_no_session(tmp_path, monkeypatch):
    """Attack A15: the file is replaced already; its folder is synced where it can be."""
    real = os.open

    def refuse(path, flags, *rest):
        if os.path.isdir(path):
            raise OSError(22, "Invalid argument")
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    assert read_session(session(tmp_path, "s")).name == "s"


def reordered(lines):
    return [",".join(reversed(line.split(","))) for line in lines]


def without_last(lines):
    return [line.rpartition(",")[0] for line in lines]


HEADERS = {
    "a column less": (without_last, "missing: flags$"),
    "a column more": (lambda lines: [f"{line},x" for line in lines], "unknown: 'x'$"),
    "another name": (lambda lines: [lines[0].replace("flags", "flag")], "missing: flags; .*'flag'"),
    "a column twice": (lambda lines: [f"{line},run" for line in lines], "there twice: run$"),
    "a cell less": (lambda lines: [lines[0], lines[1].rpartition(",")[0]], "row 1: .*fewer cells"),
    "a cell more": (lambda lines: [lines[0], f"{lines[1]},"], "row 1: it has more"),
    "an open quote": (lambda lines: [lines[0], '"' + lines[1]], "no CSV"),
}


@pytest.mark.parametrize(("change", "named"), HEADERS.values(), ids=HEADERS.keys())
def test_what_a_csv_lacks_is_said_by_name(folder, change, named):
    """Case 18."""
    path = folder / "results.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(ResultsError, match=named):
        read_results(path)


@pytest.mark.parametrize("change", [reordered, lambda lines: [*lines, "", ""]])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_order_and_empty_lines_do_not_matter(folder, change, end):
    """Case 18: columns are found by name."""
    path = folder / "results.csv"
    before = read_results(path)
    path.write_bytes(end.join([*change(path.read_text().splitlines()), ""]).encode())
    assert read_results(path).equals(before)


def test_one_writer_guards_every_csv():
    """Attack A12: whatever the columns, no cell begins like a formula."""
    hostile = "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1"
    text = csv_text([{"a": value, "b": None, "c": np.float64("nan")} for value in hostile], "abc")
    assert text.splitlines()[1] == "'=1+1,,"
    assert not [line for line in text.splitlines() if line.lstrip()[0] in "=+-@"]


def test_committed_csvs_are_rewritten_byte_for_byte(request):
    written = [
        p
        for top in ("results", "benchmarks")
        for p in (request.config.rootpath / top).rglob("results.csv")
    ]
    assert written
    for path in written:
        content = path.read_bytes()
        assert csv_text(from_csv(content.decode())).encode() == content, path
