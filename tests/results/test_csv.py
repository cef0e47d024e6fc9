"""The results CSV: the same bytes again, read by other programs, and what of others is refused."""

import csv
import io
from datetime import timedelta, timezone

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from result_rows import FACTS, add, opened

from helpers.results import COLUMNS, ResultsError, csv_text, read_results
from helpers.results.table import FORMULA_STARTS, KINDS, LATER, from_csv

HOSTILE = {
    "variant": '=HYPERLINK("http://example.invalid","open")',
    "schedule": '-2+3; "quoted", with, commas\nand a line',
    "precision": "@SUM(1;2)",
}
MACHINE = FACTS | {
    "gpu": {"name": "+1+cmd|' /C calc'!A0"},
    "software": {"torch": "été ✓ 漢字\ud800"},
    "cuda": {"torch_cuda": "12,9"},
}


@pytest.fixture
def published(tmp_path):
    session = opened(tmp_path, "s", MACHINE)
    add(session, **HOSTILE)
    add(session, accuracy=None)
    return session.complete()


def no_formula(text):
    cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
    return not any(cell.lstrip().startswith(FORMULA_STARTS) for cell in cells)


def test_committed_csvs_are_rewritten_byte_for_byte(request):
    root = request.config.rootpath
    written = [p for top in ("results", "benchmarks") for p in (root / top).rglob("results.csv")]
    assert written
    for path in written:
        rows = read_results(path).to_dict("records")
        assert csv_text(rows).encode() == path.read_bytes(), path


def test_utf8_without_a_mark_one_line_a_row_and_no_formula(published):
    content = published.read_bytes()
    text = content.decode("utf-8")
    assert (text[0], text.count("\n"), text.count("\r")) == ("v", 3, 0)
    row = read_results(published).iloc[0]
    assert (row["variant"], row["gpu_name"]) == (HOSTILE["variant"], MACHINE["gpu"]["name"])
    assert row["torch_version"] == "été ✓ 漢字?"
    assert no_formula(text)
    assert tuple(pd.read_csv(published).columns) == COLUMNS  # without any option


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_file_saved_again_by_a_spreadsheet_is_read_the_same(published, end):
    before = read_results(published)
    lines = csv.reader(io.StringIO(published.read_text(encoding="utf-8")))
    turned = io.StringIO()
    csv.writer(turned, lineterminator="\n").writerows([line[::-1] for line in lines])
    published.write_bytes(b"\xef\xbb\xbf" + turned.getvalue().encode().replace(b"\n", end) + end)
    pd.testing.assert_frame_equal(read_results(published), before)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=50)
zones = st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m)))
CELLS = {
    "text": texts | st.text("=+-@' ,;\"|x", max_size=20),
    "integer": st.integers(0, 2**63 - 1),
    "figure": st.floats(0, 1e300),
    "optional figure": st.just(float("nan")) | st.floats(0, 1e300),
    "time": st.datetimes(timezones=zones),
}
ROWS = st.fixed_dictionaries(
    {name: CELLS[kind] for name, kind in KINDS.items()}
    | {"clock": st.sampled_from(["gpu", "host"]), "dataset": st.just("cifar10")}
)


@settings(max_examples=100, deadline=None)
@given(st.lists(ROWS, max_size=3), st.sets(st.sampled_from(sorted(LATER))))
def test_rows_are_read_back_as_they_were(rows, older):
    rows = [{name: row[name] for name in COLUMNS if name not in older} for row in rows]
    back = from_csv(text := csv_text(rows))
    wanted = pd.DataFrame(rows, columns=None if rows else COLUMNS)
    pd.testing.assert_frame_equal(back, wanted, check_dtype=False)
    assert csv_text(back.to_dict("records")) == text
    assert no_formula(text)


def cell(name, value):
    """Change that puts another value into the first row."""

    def change(lines):
        table = pd.read_csv(io.StringIO("\n".join(lines)), dtype=str, keep_default_na=False)
        table.loc[0, name] = value
        return table.to_csv(index=False).splitlines()

    return change


REFUSED = {
    "a column less": (lambda lines: [lines[0].removeprefix("variant,")], "missing: .*variant"),
    "a column more": (lambda lines: [f"{line},x" for line in lines], "unknown: .*x"),
    "a column twice": (lambda lines: [f"{line},run" for line in lines], "doubled"),
    "a cell less": (lambda lines: [lines[0], lines[2].rpartition(",")[0]], "shorter"),
    "an open quote": (lambda lines: [lines[0], '"' + lines[2]], "expected after|unexpected end"),
    "no figure": (cell("lat_p95", ""), "lat_p95"),
    "not finite": (cell("gpu_p95", "inf"), "gpu_p95"),
    "below 0": (cell("lat_min", "-1"), "lat_min"),
    "no integer": (cell("run", "1.5"), "run"),
    "no time zone": (cell("timestamp", "2026-11-24T21:40:00"), "timestamp"),
    "another clock": (cell("clock", "wall"), "clock"),
}


@pytest.mark.parametrize(("change", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_with_a_csv_is_said_by_name(published, change, named):
    lines = change(published.read_text(encoding="utf-8").splitlines())
    published.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ResultsError, match=rf"{published.name}.*{named}"):
        read_results(published)
