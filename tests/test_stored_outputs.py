"""Small notebooks made here; and, at the end, the one that is committed."""

import copy
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers import stored_outputs
from helpers.stored_outputs import (
    NOTEBOOK,
    StoredOutputsError,
    code_sha256,
    problems,
    read,
    refreshed,
    stripped,
    write,
)

PARAMETERS = 'runs: int = 3  # how many runs\nsession: str = ""  # name of the folder'


def image(alt="une figure"):
    metadata = {"image/png": {"alt": alt, "width": 900}, "isolated": True}
    return new_output("display_data", {"image/png": "aGVsbG8=\n"}, metadata=metadata)


def code(name, source, *outputs, count=None, **metadata):
    return new_code_cell(
        source, id=name, outputs=list(outputs), execution_count=count, metadata=metadata
    )


@pytest.fixture
def notebook():
    """As it is edited: no outputs yet."""
    return new_notebook(
        cells=[
            new_markdown_cell("# Titre", id="title"),
            code("parameters", PARAMETERS, tags=["parameters"]),
            code("first", "import math\n\nprint(math.pi)", tags=["nbval-check-output"]),
            code("second", "plot()"),
        ],
        metadata={"kernelspec": stored_outputs.KERNEL},
    )


@pytest.fixture
def executed(notebook):
    """As papermill leaves it: an added cell, its metadata everywhere, counts, outputs."""
    run = copy.deepcopy(notebook)
    run.cells.insert(
        2, code("given", 'session = "mine"', count=2, tags=["injected-parameters"], papermill={})
    )
    for count, cell in enumerate((c for c in run.cells if c.cell_type == "code"), start=1):
        cell.execution_count = count
        cell.metadata["papermill"] = {"status": "completed", "duration": 0.1}
        cell.metadata["execution"] = {"iopub.status.busy": "2026-01-01T00:00:00Z"}
    run.cells[0].metadata["tags"] = []
    run.cells[3].outputs = [new_output("stream", name="stdout", text="3.14…\nfin\n")]
    run.cells[4].outputs = [image(), new_output("execute_result", {"text/plain": "1"})]
    run.cells[4].outputs[1].execution_count = 4
    run.metadata["papermill"] = {"parameters": {"session": "mine"}, "start_time": "now"}
    run.metadata["widgets"] = {"state": {}}
    run.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    return run


def test_outputs_are_copied_and_belong_to_the_code(notebook, executed):
    done = refreshed(notebook, executed)
    assert [c.id for c in done.cells] == ["title", "parameters", "first", "second"]
    assert done.cells[2].outputs[0].text == "3.14…\nfin\n"
    assert [c.execution_count for c in done.cells[1:]] == [1, 2, 3]
    assert done.cells[3].outputs[1].execution_count == 3
    assert done.metadata["j1"] == {"code_sha256": code_sha256(done)}
    assert problems(done) == []


def test_what_is_of_one_machine_or_moment_goes(notebook, executed):
    text = nbformat.writes(refreshed(notebook, executed))
    for gone in (
        "papermill",
        "injected",
        "iopub",
        "widgets",
        "3.11.7",
        "width",
        "isolated",
        '"tags": []',
    ):
        assert gone not in text, gone
    assert "une figure" in text


def test_prose_stays_that_of_the_notebook(notebook, executed):
    executed.cells[0].source = "# Ancien titre"
    assert refreshed(notebook, executed).cells[0].source == "# Titre"


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda c: c[3].update(source="import math\n\nprint(3)"), "cell 2, 'first'.*line 3"),
        (lambda c: c[3].update(source="import math"), r"cell 2, 'first'.*line 2"),
        (lambda c: c[3].update(id="other"), "cell 2, 'first'.*'other'"),
        (lambda c: c.pop(), "cell 3, 'second'.*only in the notebook"),
        (lambda c: c.append(code("more", "1", count=5)), "cell 4, 'more'.*only in the executed"),
        (lambda c: c.insert(4, c.pop(3)), "cell 2, 'first'.*'second'"),
    ],
)
def test_other_code_is_refused_and_the_first_difference_named(notebook, executed, edit, named):
    edit(executed.cells)
    with pytest.raises(StoredOutputsError, match=f"code {named}"):
        refreshed(notebook, executed)


def test_a_failed_run_is_refused(notebook, executed):
    executed.cells[3].outputs = [new_output("error", ename="E", evalue="", traceback=[])]
    with pytest.raises(StoredOutputsError, match=r"'first'.*failed"):
        refreshed(notebook, executed)


@pytest.mark.parametrize("how", ["count", "status"])
def test_a_run_that_was_cut_short_is_refused(notebook, executed, how):
    if how == "count":
        executed.cells[4].execution_count = None
    else:  # as papermill leaves the cells after a failure, their old outputs in place
        executed.cells[4].metadata.papermill.status = "pending"
    with pytest.raises(StoredOutputsError, match=r"'second'.*not run"):
        refreshed(notebook, executed)


def test_a_run_with_other_parameters_is_refused(notebook, executed):
    executed.metadata.papermill.parameters["runs"] = 3
    refreshed(copy.deepcopy(notebook), executed)  # the notebook's own value
    executed.metadata.papermill.parameters["runs"] = 2
    with pytest.raises(StoredOutputsError, match=r"\{'runs': 2\}.*results_dir, session may"):
        refreshed(notebook, executed)


def test_a_change_of_code_is_found_prose_is_free(notebook, executed):
    done = refreshed(notebook, executed)
    done.cells[0].source = "# Nouveau titre"
    assert problems(done) == []
    done.cells[2].source += "  # changed"
    (problem,) = problems(done)
    assert "do not belong together" in problem
    assert "refresh" in problem


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda nb: nb.metadata.pop("j1"), "no run is recorded"),
        (lambda nb: nb.cells[2].update(execution_count=None), "never run"),
        (lambda nb: nb.cells[2].update(outputs=[new_output("stream", name="stderr")]), "warning"),
        (
            lambda nb: nb.cells[2].update(outputs=[new_output("stream", text="in /Users/x/y")]),
            "one machine .*/Users/x/y",
        ),
        (lambda nb: nb.cells[0].metadata.update(tags=[]), "strip"),
        (lambda nb: nb.metadata.update(widgets={}), "strip"),
    ],
)
def test_what_should_not_be_committed_is_named(notebook, executed, edit, named):
    done = refreshed(notebook, executed)
    edit(done)
    with pytest.raises(AssertionError, match=named):
        assert not problems(done), "\n".join(problems(done))


def test_traces_of_progress_bars_are_stripped(notebook, executed):
    widget = new_output("display_data", {stored_outputs.WIDGET: {}, "text/plain": "0%"})
    executed.cells[4].outputs[:0] = [new_output("display_data", {}), widget]
    done = refreshed(notebook, executed)
    assert [o.output_type for o in done.cells[3].outputs] == ["display_data", "execute_result"]


def test_stripping_keeps_outputs_and_the_record_and_changes_nothing_twice(notebook, executed):
    done = refreshed(notebook, executed)
    saved = copy.deepcopy(done)
    saved.metadata["toc-showtags"] = False
    saved.cells[1].metadata["scrolled"] = True
    for cell in saved.cells[1:]:
        cell.execution_count += 40
    assert stripped(saved) == done
    assert stripped(copy.deepcopy(done)) == done


def test_the_file_is_what_nbformat_and_ruff_write(notebook, executed, tmp_path):
    ours, theirs = tmp_path / "ours.ipynb", tmp_path / "theirs.ipynb"
    done = refreshed(notebook, executed)
    write(done, ours)
    nbformat.write(done, theirs)
    assert ours.read_bytes() == theirs.read_bytes()
    assert "3.14…" in ours.read_text(encoding="utf8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", ours], check=True)
    assert ours.read_bytes() == theirs.read_bytes()


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "helpers.stored_outputs", *map(str, arguments)],
        cwd=NOTEBOOK.parent,
        capture_output=True,
        text=True,
    )


def test_the_commands_refresh_check_and_strip(notebook, executed, tmp_path):
    kept, run = tmp_path / "kept.ipynb", tmp_path / "run.ipynb"
    nbformat.write(notebook, kept)
    nbformat.write(executed, run)
    before = command("check", "--notebook", kept)
    assert before.returncode == 1
    assert "no run is recorded" in before.stderr
    assert command("refresh", run, "--notebook", kept).returncode == 0
    assert command("check", "--notebook", kept).returncode == 0
    saved = read(kept)
    saved.metadata["toc"] = {}
    nbformat.write(saved, kept)
    assert command("check", "--notebook", kept).returncode == 1
    assert command("strip", "--notebook", kept).returncode == 0
    assert command("check", "--notebook", kept).returncode == 0


def test_a_refused_run_leaves_the_notebook_as_it_was(notebook, executed, tmp_path):
    kept, run = tmp_path / "kept.ipynb", tmp_path / "run.ipynb"
    nbformat.write(notebook, kept)
    executed.cells[4].execution_count = None
    nbformat.write(executed, run)
    before = kept.read_bytes()
    done = command("refresh", run, "--notebook", kept)
    assert done.returncode == 1
    assert done.stderr.startswith("error: kept.ipynb: 'second'")
    assert kept.read_bytes() == before


def test_what_is_no_notebook_is_named(tmp_path):
    (tmp_path / "x.ipynb").write_text("{}")
    for name in ("x.ipynb", "missing.ipynb"):
        with pytest.raises(StoredOutputsError, match=name):
            read(tmp_path / name)


def test_the_committed_notebook_and_its_outputs_belong_together():
    found = problems(read(NOTEBOOK))
    assert not found, "\n".join(found)
