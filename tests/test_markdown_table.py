"""The one writer of Markdown tables: foreign text stays text."""

import pandas as pd
import pytest

from helpers.display.tables import markdown_table, show


@pytest.mark.parametrize(
    "evil", ["a|b", "a\nb", "a\\|b", "<img src=x onerror=alert(1)>", "[x](javascript:1)", "``"]
)
def test_a_cell_cannot_break_out(evil):
    """Attack A3, in a cell, in the index, in a column's name, and in the notebook's HTML."""
    frame = pd.DataFrame({evil: [evil, "b"]}, index=pd.Index([evil, "x"], name="Variante"))
    lines = markdown_table(frame).splitlines()
    assert len(lines) == 4
    for line in lines:
        bare = line.replace("\\\\", "").replace("\\|", "")
        assert bare.count("|") == 3
        assert "<" not in line
        assert "[x](" not in line.replace("\\[x\\](", "")
    assert "<img" not in show(frame, "Avant").data
