"""The parameters cell as a table: read from the notebook, kept in README.md between two marks.

python -m helpers.parameters_table      write the table into README.md
"""

import ast
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK, README = ROOT / "J1_benchmark.ipynb", ROOT / "README.md"
BEGIN, END = "<!-- parameters: python -m helpers.parameters_table -->", "<!-- /parameters -->"
TAG = "parameters"  # papermill's, on the cell whose values it replaces
_LINE = re.compile(r"(?P<name>\w+): (?P<type>\w+) = (?P<default>[^#]+?)  # (?P<help>.+)")


class ParameterLine(NamedTuple):
    """One line of the parameters cell; `default` is its value, `code` as it is written there."""

    name: str
    type: str
    default: Any
    code: str
    help: str


def parameter_lines(notebook: NotebookNode) -> list[ParameterLine]:
    """Read the parameters cell.

    Raises
    ------
    ValueError
        There is not one such cell, or a line of it is none that papermill's help would list.
    """
    cells = [cell for cell in notebook.cells if TAG in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{len(cells)} cells are tagged {TAG!r}: exactly one is needed")
    lines = []
    for line in cells[0].source.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"parameters cell, {line!r}: write `name: type = value  # help`")
        name, kind, code, text = match.groups()
        lines.append(ParameterLine(name, kind, ast.literal_eval(code), code, text))
    return lines


def markdown_table(lines: list[ParameterLine]) -> str:
    """Lay the parameters out as a Markdown table."""
    head = ["| parameter | type | default | what it is |", "|---|---|---|---|"]
    return "\n".join(
        [*head, *(f"| `{p.name}` | {p.type} | `{p.code}` | {p.help} |" for p in lines)]
    )


def with_table(text: str, table: str) -> str:
    """Put `table` between the two marks of `text`, in place of what is there.

    Raises
    ------
    ValueError
        A mark is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no place for the table: the lines {BEGIN!r} and {END!r} are needed")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def main() -> None:
    """Write the table of the notebook's parameters into README.md."""
    try:
        table = markdown_table(parameter_lines(nbformat.read(NOTEBOOK, as_version=4)))
        text = README.read_text(encoding="utf8")
        README.write_text(with_table(text, table), encoding="utf8")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
