"""nbval on the notebook: beside test_notebook.py, so that two workers share the longest tests."""

import nbformat
import pytest
from test_notebook import CHECKED, NOTEBOOK, ROOT, SMALL, papermill, run, tagged


@pytest.fixture
def folder(tmp_path):
    """Where the notebook runs as in the root, whose published CSV no test may replace."""
    (ROOT / "data").mkdir(exist_ok=True)
    for name in ("helpers", "data", NOTEBOOK.name):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


# --nbval-lax, which checks the same cells here, is run on a small session below.
def test_nbval_passes_verbatim(folder):
    done = run("pytest", "--nbval", NOTEBOOK.name, folder=folder)
    assert done.returncode == 0, done.stdout[-3000:]


def test_nbval_catches_a_wrong_stored_output(folder):
    small = f"{SMALL} -p dataset synthetic -p isolation none".split()
    done = papermill(prepared := folder / "out.ipynb", "--prepare-only", *small)
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(prepared, as_version=4)
    checked = tagged(notebook, CHECKED)
    for output in (cell.outputs[0] for cell in checked):  # changed as a careless edit would
        if "text" in output:
            output.text = output.text.replace("e", "é", 1)
        else:
            output.data["text/html"] = output.data["text/html"].replace("non", "oui", 1)
    nbformat.write(notebook, prepared)
    done = run("pytest", "--nbval-lax", prepared.name, folder=folder)
    assert done.returncode == 1, done.stdout[-3000:]
    assert f"{len(checked)} failed" in done.stdout
