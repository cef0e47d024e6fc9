"""The notebook as a person meets it: JupyterLab in headless Chromium."""

import shutil
import time

import pytest
from lab import NOTEBOOK, RUN_S, OpenNotebook, copy_project, failures, serving, text

sync_api = pytest.importorskip("playwright.sync_api", reason="run `make test-browser` once")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt install chromium"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SMALL = {"runs": 2, "warmup_iters": 10, "measure_iters": 60, "eval_images": 200}
SMALL |= {"dataset": "synthetic", "device": "cpu", "max_p95_spread": 0.99}
FIGURES = 4


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("project"), **SMALL)
    with serving(folder, tmp_path_factory.mktemp("jupyter")) as address:
        yield folder, address


@pytest.fixture
def opened(browser, lab):
    """Open a notebook of the project in a fresh page, at a laptop's size."""
    page, file = browser.new_page(viewport={"width": 1440, "height": 900}), lab[0] / NOTEBOOK
    as_it_was = file.read_bytes()
    yield lambda name=NOTEBOOK: OpenNotebook(page, lab[1](name))
    page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")
    page.close()
    file.write_bytes(as_it_was)  # JupyterLab saves every two minutes, edits too


def sessions(lab):
    """The rows of every session's results, by session."""
    found = sorted((lab[0] / "results").glob("*/results.csv"))
    return {path.parent.name: path.read_text().splitlines()[1:] for path in found}


def test_all_cells_run_to_the_verdict_and_again_with_another_parameter(opened, lab):
    notebook = opened()
    notebook.menu("Run", "Run All Cells")
    notebook.wait()
    cells = notebook.cells()
    assert not failures(cells)
    assert "ACCEPTÉ" in text(cells["verdict"])
    for name, cell in cells.items():
        if cell["cell_type"] == "code":
            assert cell["execution_count"], name
            assert "it/s]" not in text(cell), name  # nothing is left of progress
    drawn = notebook.page.evaluate(  # figures with pixels, no wider than their output
        """[...document.querySelectorAll('.jp-OutputArea-output img')].filter(image =>
            image.naturalWidth && image.clientWidth <= image.parentElement.clientWidth).length"""
    )
    assert drawn >= FIGURES
    first = sessions(lab)

    notebook.run("runs")  # all runs are there: nothing is measured twice
    notebook.wait()
    assert sessions(lab) == first

    notebook.write("parameters", "runs = 2", "runs = 3")
    notebook.menu("Run", "Run All Cells")
    notebook.wait()
    assert not failures(notebook.cells())
    assert sorted(map(len, sessions(lab).values())) == [2, 3]


def test_an_interrupted_run_goes_on_where_it_stopped(opened, lab):
    notebook, before = opened(), sessions(lab)
    # Long enough to be interrupted after the first run, whatever the machine.
    notebook.write("parameters", "measure_iters = 60", "measure_iters = 1500")
    notebook.menu("Run", "Run All Cells")
    end = time.monotonic() + RUN_S
    while not (new := sessions(lab).keys() - before.keys()):
        assert time.monotonic() < end, failures(notebook.cells())
        notebook.page.wait_for_timeout(100)
    (name,) = new
    notebook.menu("Kernel", "Interrupt Kernel")
    notebook.wait()
    assert "KeyboardInterrupt" in str(notebook.cells()["runs"]["outputs"])
    (row,) = sessions(lab)[name]

    notebook.run("runs")
    notebook.wait()
    assert (len(sessions(lab)[name]), sessions(lab)[name][0]) == (2, row)
