"""The documents say what the committed reference measurements say."""

import nbformat

from helpers.french import number
from helpers.results import read_results
from helpers.verdict import CLOCK_NAMES
from tests.gpu import protocol

SESSION = protocol.REFERENCE / "session"


def test_the_notebook_opens_with_the_measured_label():
    notebook = nbformat.read(protocol.ROOT / "J1_benchmark.ipynb", as_version=4)
    assert protocol.label() in notebook.cells[0].source


def test_the_protocol_has_the_measured_tables():
    text = protocol.PROTOCOL.read_text(encoding="utf8")
    assert protocol.rewritten(text) == text


def test_the_readme_quotes_the_reference_session():
    readme = (protocol.ROOT / "README.md").read_text(encoding="utf8")
    rows = read_results(SESSION / "results.csv")
    for clock in CLOCK_NAMES:
        middle = rows.sort_values(f"{clock}_p95").iloc[len(rows) // 2]
        for figure in ("mean", "p95"):
            assert number(middle[f"{clock}_{figure}"]).replace(",", ".") in readme


def test_the_reference_session_is_real_cifar10_and_complete():
    rows = read_results(SESSION / "results.csv")
    assert set(rows["dataset"]) == {"cifar10"}
    assert set(rows["eval_images"]) == {10_000}
    names = {path.name for path in SESSION.iterdir()}
    assert {"environment.json", "verdict.json", "run_1.npz", "J1_benchmark.ipynb"} <= names
