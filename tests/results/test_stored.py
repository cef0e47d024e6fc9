"""A session's folder from anywhere: read whole, or refused with the file named."""

import io
import json
import os
import zipfile

import numpy as np
import pandas as pd
import pytest
from result_rows import opened, write_session

from helpers.results import COLUMNS, PUBLISHED, ResultsError, read_session
from helpers.results.table import LATER


@pytest.fixture
def folder(tmp_path):
    return write_session(tmp_path, "s")


def test_a_session_is_read_back(folder):
    (folder / "comparaison.md").write_text("| é |", encoding="utf-8")
    older = pd.read_csv(folder / "results.csv").drop(columns=LATER)
    older.to_csv(folder / "results.csv", index=False)
    read = read_session(folder)
    assert tuple(read.rows.columns) == COLUMNS
    assert set(read.rows["accepted"]) == {""}
    assert (read.name, read.dataset, read.outcome) == ("s", "cifar10", "yes")
    assert read.sentences == ("ACCEPTÉ",)
    assert read.environment["gpu"]["uuid"] == "GPU-1"
    assert read.environment["git"]["commit"] is None
    assert (read.parameters["model"], read.parameters["runs"]) == ("resnet18", 3)
    assert read.comparison == "| é |"
    assert read.rows["run"].tolist() == [1, 2, 3]
    assert read.samples(2)["host_ms"].size == 100
    assert "run_1.npz" in read.files


JSON = ["[" * 100_000, "", b"\xff\xfe", '{"a": ["\\ud800"]}', b" " * (128 * 2**20 + 1), "[]"]
IDS = ["nested", "empty", "not UTF-8", "lone surrogate", "huge", "list"]


@pytest.mark.parametrize("name", ["session.json", "verdict.json", "results.csv"])
@pytest.mark.parametrize("content", JSON, ids=IDS)
def test_a_damaged_file_is_named(folder, name, content):
    """Attack A8."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ResultsError, match=name):
        read_session(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("session.json", {"state": "running"}),
        ("verdict.json", {"sentences": []}),
        ("environment.json", {"gpu": ["x"]}),
        ("environment.json", {"software": 2}),
        ("results.csv", ",".join(COLUMNS)),
    ],
)
def test_what_is_no_complete_session_is_refused(folder, name, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(ResultsError, match=str(folder)):
        read_session(folder)


@pytest.mark.parametrize(
    "change", [lambda ms: ms[:0], lambda ms: ms * 1.01, lambda ms: ms * np.nan]
)
def test_samples_that_do_not_give_their_row_are_refused(folder, change):
    kept = dict(np.load(folder / "run_1.npz"))
    for clock in ("host_ms", "gpu_ms"):
        np.savez_compressed(folder / "run_1.npz", **kept | {clock: change(kept[clock])})
        with pytest.raises(ResultsError, match=r"run_1\.npz"):
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


ARCHIVES = {
    "no member": npz(),
    "8 TB announced": npz(host_ms=npy((10**12,))),
    "objects": npz(host_ms=npy((1,), "|O", b"\x80\x04N.")),
    "cut off": npz(host_ms=npy((500,), values=bytes(4000)))[:-100],
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
    for path in (folder / name, folder.parent / PUBLISHED):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    with pytest.raises(ResultsError, match=rf"{name}: no regular file"):
        read_session(folder).samples(0)
    with pytest.raises(ResultsError, match="no regular file"):
        opened(folder.parent, "next")
