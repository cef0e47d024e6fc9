"""nbval on the notebook: beside test_notebook.py, so that two workers share the longest tests."""

import nbformat
from test_notebook import CHECKED, ROOT, SMALL, papermill, run, tagged


# --nbval-lax, which checks the same cells here, is run on a small session below.
def test_nbval_passes_verbatim():
    done = run("pytest", "--nbval", "J1_benchmark.ipynb")
    assert done.returncode == 0, done.stdout[-3000:]


def test_nbval_catches_a_wrong_stored_output(tmp_path):
    prepared = ROOT / f"out_{tmp_path.name}.ipynb"  # nbval's kernel starts in its notebook's folder
    try:
        small = f"{SMALL} -p dataset synthetic -p isolation none -p results_dir".split()
        done = papermill(prepared, "--prepare-only", *small, str(tmp_path / "results"))
        assert done.returncode == 0, done.stderr
        notebook = nbformat.read(prepared, as_version=4)
        checked = tagged(notebook, CHECKED)
        for output in (cell.outputs[0] for cell in checked):  # changed as a careless edit would
            if "text" in output:
                output.text = output.text.replace("e", "é", 1)
            else:
                output.data["text/html"] = output.data["text/html"].replace("non", "oui", 1)
        nbformat.write(notebook, prepared)
        done = run("pytest", "--nbval-lax", prepared.name)
        assert done.returncode == 1, done.stdout[-3000:]
        assert f"{len(checked)} failed" in done.stdout
    finally:
        prepared.unlink(missing_ok=True)
