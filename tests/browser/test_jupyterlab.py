"""The notebook as a person meets it: JupyterLab in headless Chromium, its screenshots kept.

They go to the folder named by J1_SCREENSHOTS, or else to pytest's temporary folder.
"""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from lab import FLAGS, NOTEBOOK, OpenNotebook, copy_project, failures, serving, text
from nbformat.v4 import new_code_cell, new_notebook

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
sync_api = pytest.importorskip("playwright.sync_api", reason="run `make test-browser` once")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt install chromium"),
]
SMALL = {"runs": 2, "warmup_iters": 10, "measure_iters": 60, "eval_images": 200}
SMALL |= {"dataset": '"synthetic"', "device": '"cpu"', "max_p95_spread": 0.99}
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


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory):
    folder = os.environ.get("J1_SCREENSHOTS")
    return Path(folder) if folder else tmp_path_factory.mktemp("screenshots")


@pytest.fixture
def opened(browser, lab):
    """Open a notebook of the project in a fresh page, at a laptop's size."""
    pages = []

    def open_notebook(name=NOTEBOOK):
        pages.append(browser.new_page(viewport={"width": 1440, "height": 900}))
        return OpenNotebook(pages[-1], lab[1](name))

    yield open_notebook
    for page in pages:
        page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")
        page.close()


@pytest.fixture
def notebook(opened):
    return opened()


def sessions(lab):
    """The rows of every session's results, by session."""
    found = sorted((lab[0] / "results").glob("*/results.csv"))
    return {path.parent.name: path.read_text().splitlines()[1:] for path in found}


def photograph(notebook, folder, name):
    """One screenshot for each screenful of the notebook."""
    folder.mkdir(parents=True, exist_ok=True)
    scroll = """([page]) => {
        const outer = document.querySelector('.jp-WindowedPanel-outer');
        outer.scrollTop = page * (outer.clientHeight - 40);
        const last = [...outer.querySelectorAll('.jp-Cell')].at(-1);
        return last.getBoundingClientRect().bottom > outer.getBoundingClientRect().bottom;
    }"""
    page = 0
    while True:
        more = notebook.page.evaluate(scroll, [page])
        notebook.page.wait_for_timeout(200)
        notebook.page.screenshot(path=folder / f"{name}_{page:02d}.png")
        page += 1
        if not more:
            return


def test_all_cells_run_to_the_verdict_and_again_with_another_parameter(notebook, lab, screenshots):
    notebook.run_all()
    cells = notebook.cells()
    photograph(notebook, screenshots, "run")
    assert not failures(cells)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    assert "ACCEPTÉ — horloge hôte" in text(notebook.cell("verdict"))
    check_figures(notebook)
    check_nothing_is_left_of_progress(notebook, code)
    first = sessions(lab)

    notebook.run("runs")  # all runs are there: nothing is measured twice
    notebook.wait()
    assert not failures(notebook.cells())
    assert sessions(lab) == first

    notebook.write("parameters", "runs: int = 2", "runs: int = 3")
    notebook.run_all()
    assert not failures(notebook.cells())
    assert "3 runs" in text(notebook.cell("verdict"))
    assert sorted(map(len, sessions(lab).values())) == [2, 3]


def check_figures(notebook):
    """Every figure is an image with pixels, as wide as its output allows and no wider."""
    drawn = notebook.page.evaluate(
        """[...document.querySelectorAll('.jp-RenderedImage img')].map(image =>
            [image.naturalWidth, image.clientWidth, image.parentElement.clientWidth])"""
    )
    assert len(drawn) >= FIGURES
    assert all(0 < shown <= room and pixels > 0 for pixels, shown, room in drawn), drawn


def check_nothing_is_left_of_progress(notebook, code):
    assert not notebook.page.locator(".jupyter-widgets, progress").count()
    for cell in code:
        assert "it/s]" not in text(cell), cell["id"]
        assert "widget" not in text(cell), cell["id"]


def test_the_outline_lists_the_steps(notebook, screenshots):
    notebook.page.get_by_role("tab", name="Table of Contents").click()
    entries = notebook.page.locator(".jp-TableOfContents-content .jp-tocItem-heading")
    entries.first.wait_for()
    listed = entries.all_inner_texts()
    steps = [
        line.removeprefix("## ")
        for cell in notebook.cells()
        if cell["cell_type"] == "markdown"
        for line in "".join(cell["source"]).splitlines()
        if line.startswith("## ")
    ]
    assert len(steps) >= 6
    assert [entry for entry in listed if entry in steps] == steps
    screenshots.mkdir(parents=True, exist_ok=True)
    notebook.page.screenshot(path=screenshots / "outline.png")


def test_an_interrupted_run_goes_on_where_it_stopped(notebook, lab):
    before = sessions(lab)
    # Long enough to be interrupted after the first run, whatever the machine.
    notebook.write("parameters", "measure_iters: int = 60", "measure_iters: int = 1500")
    notebook.menu("Run", "Run All Cells")
    name, rows = wait_for_a_run(notebook, lab, before)
    notebook.menu("Kernel", "Interrupt Kernel")
    notebook.wait()
    assert "KeyboardInterrupt" in str(notebook.cell("runs")["outputs"])
    assert len(sessions(lab)[name]) == 1

    notebook.run("runs")
    notebook.wait()
    kept = sessions(lab)[name]
    assert not failures([notebook.cell("runs")])
    assert (len(kept), kept[0]) == (2, rows[0])


def wait_for_a_run(notebook, lab, before):
    for _ in range(3000):
        new = {name: rows for name, rows in sessions(lab).items() if name not in before}
        if new:
            return new.popitem()
        notebook.page.wait_for_timeout(100)
    raise AssertionError(f"no run within 300 s: {failures(notebook.cells())}")


def test_a_progress_bar_is_live_and_leaves_nothing(opened, lab, screenshots):
    source = (
        "import time\n\nfrom helpers.environment.progress import track\n\nprint('before')\n"
        "for _ in track(range(8), description='essai'):\n    time.sleep(0.4)\nprint('after')"
    )
    written = new_notebook(cells=[new_code_cell(source, id="bar")], metadata={"kernelspec": KERNEL})
    nbformat.write(written, lab[0] / "bar.ipynb")
    notebook = opened("bar.ipynb")
    shown = notebook.page.locator(".jp-OutputArea-output", has_text="essai:")
    notebook.run("bar")
    shown.filter(has_text="3/8").wait_for()
    screenshots.mkdir(parents=True, exist_ok=True)
    notebook.page.screenshot(path=screenshots / "progress.png")
    notebook.wait()
    assert shown.count() == 0
    assert text(notebook.cell("bar")).split() == ["before", "after"]
    assert not failures(notebook.cells())
    notebook.page.screenshot(path=screenshots / "progress_done.png")
