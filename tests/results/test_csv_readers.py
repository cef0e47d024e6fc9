"""The results CSV opens unchanged in pandas, in Python's Excel dialect, and in LibreOffice."""

import csv
import io
import shutil
import subprocess

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from result_rows import SAMPLES, row

from helpers.results import COLUMNS, PUBLISHED, csv_text, open_session, read_results
from helpers.results.table import FORMULA_STARTS, KINDS, check_row

FIGURES = [name for name, kind in KINDS.items() if kind in ("figure", "optional figure")]
TEXTS = [name for name, kind in KINDS.items() if kind == "text"]
HOSTILE = {
    "variant": '=HYPERLINK("http://example.invalid","open")',
    "gpu_name": "+1+cmd|' /C calc'!A0",
    "device": "@SUM(1;2)",
    "flags": '-2+3; "quoted", with, commas\nand a line',
    "torch_version": "été ✓ 漢字",
    "cuda_version": "12,9",
}


@pytest.fixture
def published(tmp_path):
    session = open_session(tmp_path, "s")
    session.add_run(row(**HOSTILE), SAMPLES)
    session.add_run(row(run=2, lat_p95_low=1.2e-7, lat_p95_high=12345.678901234567), SAMPLES)
    return session.complete()


def test_pandas_without_any_option(published):
    plain, ours = pd.read_csv(published), read_results(published)
    assert tuple(plain.columns) == COLUMNS
    for name in FIGURES:
        assert plain[name].dtype == "float64", name
        pd.testing.assert_series_equal(plain[name], ours[name])
    assert plain["run"].tolist() == [1, 2]
    assert pd.to_datetime(plain["timestamp"], format="ISO8601").dt.tz is not None


@pytest.mark.parametrize("dialect", ["excel", "unix"])
def test_pythons_csv_module(published, dialect):
    with open(published, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, dialect=dialect))
    assert [tuple(r) for r in rows] == [COLUMNS, COLUMNS]
    assert float(rows[1]["lat_p95_high"]) == 12345.678901234567
    assert rows[0]["torch_version"] == HOSTILE["torch_version"]
    assert rows[1]["lat_p95_low"] == "1.2e-07"


def test_the_excel_dialect_writes_it_back_the_same(published):
    text = published.read_text(encoding="utf-8")
    again = io.StringIO()
    csv.writer(again, dialect="excel", lineterminator="\n").writerows(csv.reader(io.StringIO(text)))
    assert again.getvalue() == text


def test_utf8_without_a_byte_order_mark_one_line_a_row(published):
    content = published.read_bytes()
    assert not content.startswith(b"\xef\xbb\xbf")
    assert content.decode("utf-8").count("\n") == 3
    assert b"\r" not in content


def test_a_file_saved_again_by_a_spreadsheet_is_read_the_same(published):
    before = read_results(published)
    published.write_bytes(b"\xef\xbb\xbf" + published.read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(read_results(published), before)


def test_no_cell_of_a_hostile_row_is_a_formula(published):
    with open(published, newline="", encoding="utf-8") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [cell for cell in cells if cell.lstrip().startswith(FORMULA_STARTS)]


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from([n for n in TEXTS if n not in ("clock", "dataset", "session", "variant")]),
    text=st.text(max_size=60) | st.text("=+-@'\t\r\n ,;\"|x", max_size=20),
)
def test_no_text_at_all_makes_a_formula(name, text):
    lines = list(csv.reader(io.StringIO(csv_text([check_row(row(**{name: text}))]))))
    assert [len(line) for line in lines] == [len(COLUMNS)] * 2
    assert not lines[1][COLUMNS.index(name)].lstrip().startswith(FORMULA_STARTS)


def test_libreoffice(published, tmp_path):
    office = shutil.which("soffice") or shutil.which("libreoffice")
    if office is None:
        pytest.skip("LibreOffice is not installed here: neither soffice nor libreoffice is found")
    command = [office, "--headless", f"-env:UserInstallation=file://{tmp_path}/profile"]
    subprocess.run(
        [
            *command,
            *("--convert-to", "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,false"),
            *("--outdir", tmp_path / "out", published),
        ],
        check=True,
        capture_output=True,
        timeout=180,
    )
    again = pd.read_csv(tmp_path / "out" / PUBLISHED)
    plain = pd.read_csv(published)
    assert tuple(again.columns) == COLUMNS
    for name in FIGURES:
        assert again[name].tolist() == pytest.approx(plain[name].tolist(), nan_ok=True), name
    assert again["variant"].tolist()[0].endswith(HOSTILE["variant"])  # a text, not its result
