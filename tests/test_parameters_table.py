import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.parameters_table import (
    BEGIN,
    END,
    NOTEBOOK,
    README,
    markdown_table,
    parameter_lines,
    with_table,
)

LINES = [
    "runs: int = 3  # how many runs, at least 2",
    'device: str = "auto"  # auto (CUDA if usable), cpu',
    "limit: float = 0.1  # (max - min) / mean is below this",
]


def notebook(lines, tags=("parameters",)):
    return new_notebook(cells=[new_code_cell("\n".join(lines), metadata={"tags": list(tags)})])


def test_name_type_default_and_help_are_read():
    runs, device, limit = parameter_lines(notebook(LINES))
    assert runs == ("runs", "int", 3, "3", "how many runs, at least 2")
    assert device.default == "auto"
    assert limit.help == "(max - min) / mean is below this"


@pytest.mark.parametrize("line", ["runs = 3", "runs: int = 3", "", "runs: int = 3 # one space"])
def test_a_line_that_the_help_would_not_list_is_named(line):
    with pytest.raises(ValueError, match=r"write `name: type = value  # help`"):
        parameter_lines(notebook([*LINES, line, *LINES]))


def test_exactly_one_parameters_cell_is_needed():
    with pytest.raises(ValueError, match="0 cells"):
        parameter_lines(notebook(LINES, tags=[]))


def test_the_table_replaces_what_is_between_the_marks():
    table = markdown_table(parameter_lines(notebook(LINES)))
    assert '| `device` | str | `"auto"` | auto (CUDA if usable), cpu |' in table
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    new = with_table(text, table)
    assert "old" not in new
    assert new.startswith("before\n")
    assert new.endswith("\nafter\n")
    assert with_table(new, table) == new


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}"])
def test_missing_marks_are_named(text):
    with pytest.raises(ValueError, match="no place for the table"):
        with_table(text, "table")


def test_readme_has_the_notebooks_parameters():
    lines = parameter_lines(nbformat.read(NOTEBOOK, as_version=4))
    text = README.read_text(encoding="utf8")
    assert with_table(text, markdown_table(lines)) == text, (
        "run: python -m helpers.parameters_table"
    )
