"""The outputs stored in the notebook: brought in from a run, kept clean, and held to their code.

    python -m helpers.stored_outputs refresh EXECUTED.ipynb   copy the outputs of a run
    python -m helpers.stored_outputs check                    do code and outputs belong together?
    python -m helpers.stored_outputs strip                    clean what JupyterLab saved

All take `--notebook FILE` for another notebook than J1_benchmark.ipynb.
"""

import argparse
import copy
import hashlib
import json
import re
import sys
from itertools import zip_longest
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from helpers.parameters_table import parameter_lines
from helpers.results.files import ResultsError, write_file

NOTEBOOK = Path(__file__).resolve().parents[1] / "J1_benchmark.ipynb"
INJECTED = "injected-parameters"  # papermill's tag on the cell that it adds
# Parameters that say where things are kept, not what is measured.
PLACES = frozenset({"session", "results_dir", "data_dir"})
# What stays of the metadata; the rest is of one machine, one program or one moment.
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
KEPT_OF_OUTPUT = ("alt",)
WIDGET = "application/vnd.jupyter.widget-view+json"
MACHINE_PATH = re.compile(r"/(?:home|root|tmp|mnt|var|Users)/[\w./-]+")
REFRESH = (
    "run the notebook with its own parameters (`make benchmark`), then `python -m "
    "helpers.stored_outputs refresh results/SESSION/J1_benchmark.ipynb`"
)


class StoredOutputsError(ValueError):
    """The notebook's code and outputs do not belong together; the message says what to do."""


def code_sha256(notebook: NotebookNode) -> str:
    """SHA-256 over the identifiers and sources of the code cells, in order."""
    cells = [[cell.id, cell.source] for cell in code_cells(notebook)]
    return hashlib.sha256(json.dumps(cells, ensure_ascii=False).encode()).hexdigest()


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Cells with code, without the one that papermill injects."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and INJECTED not in cell.metadata.get("tags", [])
    ]


def refreshed(notebook: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """Return `notebook` with the outputs of `executed`, clean, and the hash of their code.

    Raises
    ------
    StoredOutputsError
        The code cells differ, the run failed or was cut short, or its parameters were not the
        notebook's own.
    """
    ours, theirs = code_cells(notebook), code_cells(executed)
    for index in range(max(len(ours), len(theirs))):
        _check_same(index, ours[index : index + 1], theirs[index : index + 1])
    _check_parameters(notebook, executed)
    for mine, run in zip(ours, theirs, strict=True):
        _check_executed(run)
        mine.outputs, mine.execution_count = run.outputs, run.execution_count
    stripped(notebook)
    notebook.metadata["j1"] = {"code_sha256": code_sha256(notebook)}
    return notebook


def _check_same(index: int, mine: list[NotebookNode], run: list[NotebookNode]) -> None:
    """Compare one code cell of each side, or none where a side has fewer."""
    if [(c.id, c.source) for c in mine] == [(c.id, c.source) for c in run]:
        return
    if not mine or not run:
        what = f"{_name((mine or run)[0])} is only in the {'notebook' if mine else 'executed copy'}"
    elif mine[0].id != run[0].id:
        what = f"{_name(mine[0])} in the notebook, {_name(run[0])} in the executed copy"
    else:
        pairs = zip_longest(mine[0].source.split("\n"), run[0].source.split("\n"))
        line = next(n for n, (a, b) in enumerate(pairs, start=1) if a != b)
        what = f"{_name(mine[0])} differs from its line {line} on"
    raise StoredOutputsError(
        f"the executed copy ran other code: code cell {index + 1}, {what}. To store its outputs, "
        f"{REFRESH}"
    )


def _check_parameters(notebook: NotebookNode, executed: NotebookNode) -> None:
    """Refuse a run with other parameters than those that the reader sees above its outputs."""
    given = executed.metadata.get("papermill", {}).get("parameters", {})
    own = {line.name: line.default for line in parameter_lines(notebook)}
    other = {k: v for k, v in given.items() if k not in PLACES and own.get(k) != v}
    if other:
        raise StoredOutputsError(
            f"the executed copy ran with {other}, which its readers would not see in the "
            f"parameters cell: {REFRESH}; only {', '.join(sorted(PLACES))} may be given"
        )


def _check_executed(cell: NotebookNode) -> None:
    """Refuse a cell that failed or was not run; papermill's own status tells stale outputs."""
    status = cell.metadata.get("papermill", {}).get("status", "completed")
    if status == "failed" or any(output.output_type == "error" for output in cell.outputs):
        raise StoredOutputsError(f"{_name(cell)} failed in the executed copy: mend it, {REFRESH}")
    if status != "completed" or (cell.source.strip() and cell.execution_count is None):
        raise StoredOutputsError(f"{_name(cell)} was not run in the executed copy: {REFRESH}")


def _name(cell: NotebookNode) -> str:
    first = next(iter(cell.source.strip().splitlines()), "")
    return f"{cell.id!r} ({first[:60]})"


def stripped(notebook: NotebookNode) -> NotebookNode:
    """Clean `notebook` in place: what is of one machine, program or moment goes, outputs stay.

    Of a cell's metadata its tags stay, of an output's the alternative text; execution counts
    become 1, 2, 3 … in the order of the cells.
    """
    notebook.cells = [c for c in notebook.cells if INJECTED not in c.metadata.get("tags", [])]
    ours = {"j1": notebook.metadata["j1"]} if "j1" in notebook.metadata else {}
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": LANGUAGE, **ours}
    )
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = NotebookNode({"tags": tags} if tags else {})
    run = [cell for cell in code_cells(notebook) if cell.execution_count is not None]
    for count, cell in enumerate(run, start=1):
        cell.execution_count = count
        cell.outputs = [output for output in cell.outputs if not _is_trace_of_progress(output)]
        for output in cell.outputs:
            _strip_output(output, count)
    return notebook


def _is_trace_of_progress(output: NotebookNode) -> bool:
    """An emptied display, or a widget, of which only a dead frame would be stored."""
    data = output.get("data")
    return data is not None and (not data or WIDGET in data)


def _strip_output(output: NotebookNode, count: int) -> None:
    if output.output_type == "execute_result":
        output.execution_count = count
    if "metadata" in output:
        kept = {
            mime: {key: value for key, value in values.items() if key in KEPT_OF_OUTPUT}
            for mime, values in output.metadata.items()
            if isinstance(values, dict)
        }
        output.metadata = nbformat.from_dict({mime: v for mime, v in kept.items() if v})


def problems(notebook: NotebookNode) -> list[str]:
    """What keeps `notebook` from being committed, each with its remedy; none is an empty list."""
    found = []
    kept = notebook.metadata.get("j1", {}).get("code_sha256")
    if kept != code_sha256(notebook):
        reason = (
            "no run is recorded" if kept is None else "the code has changed since they were made"
        )
        found.append(f"code cells and stored outputs do not belong together ({reason}): {REFRESH}")
    for cell in code_cells(notebook):
        if cell.source.strip() and cell.execution_count is None:
            found.append(f"{_name(cell)} was never run: {REFRESH}")
        if any(o.output_type == "error" or o.get("name") == "stderr" for o in cell.outputs):
            found.append(
                f"{_name(cell)} has an error or a warning stored: mend its cause, {REFRESH}"
            )
        found += [
            f"{_name(cell)} shows a path of one machine ({path}): {REFRESH}"
            for path in sorted(set(MACHINE_PATH.findall(json.dumps(cell.outputs))))
        ]
    if stripped(copy.deepcopy(notebook)) != notebook:
        found.append(
            "metadata, counts or progress bars of one machine are stored: "
            "`python -m helpers.stored_outputs strip`"
        )
    return found


def read(path: Path) -> NotebookNode:
    """Read a notebook.

    Raises
    ------
    StoredOutputsError
        The file cannot be read, or is no notebook.
    """
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise StoredOutputsError(
            f"{path} cannot be read as a notebook ({error}): check the path"
        ) from None


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook as nbformat and JupyterLab do, in one step."""
    nbformat.validate(notebook)
    write_file(path, f"{nbformat.writes(notebook)}\n".encode())


def main() -> None:
    """Run the command named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("refresh", "check", "strip"))
    parser.add_argument("executed", nargs="?", type=Path, metavar="EXECUTED.ipynb")
    parser.add_argument("--notebook", type=Path, default=NOTEBOOK)
    given = parser.parse_args()
    if (given.command == "refresh") != (given.executed is not None):
        parser.error("refresh, and only refresh, needs the executed copy")
    try:
        notebook = read(given.notebook)
        if given.command == "check":
            found = problems(notebook)
        else:
            if given.command == "refresh":
                refreshed(notebook, read(given.executed))
            write(stripped(notebook), given.notebook)
            found = []
    except (StoredOutputsError, ResultsError) as error:
        found = [str(error)]
    if found:
        sys.exit("\n".join(f"error: {given.notebook.name}: {problem}" for problem in found))


if __name__ == "__main__":
    main()
