import sys
import threading
from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell

from helpers.environment.progress import track


@pytest.fixture
def cell(monkeypatch):
    """A live notebook's cell: its one output as the front end would show it, write by write."""
    shell = SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=True), seen=[])
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr(InteractiveShell, "initialized", lambda: True)

    def publish(data, *_, update=False, transient=None, **__):
        assert update == bool(shell.seen), "one output, made once and then replaced"
        shell.seen.append(data)

    monkeypatch.setattr("IPython.core.display_functions.publish_display_data", publish)
    return shell


def test_nothing_is_shown_where_nobody_watches(cell, capfd):
    cell.kernel._allow_stdin = False
    assert list(track(iter([3, 1, 2]), description="runs")) == [3, 1, 2]
    cell.kernel = None
    assert list(track([3], description="runs")) == [3]
    assert cell.seen == []
    assert capfd.readouterr() == ("", "")


def test_at_a_terminal_the_bar_is_drawn_and_wiped(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    before = threading.active_count()
    for _ in track(iter("ab"), total=2, description="runs"):
        assert threading.active_count() == before  # nothing wakes up between items
    said = capsys.readouterr().err
    assert "runs:   0%" in said
    assert said.rsplit("\r", 2)[1].strip() == ""


def test_in_a_cell_one_output_moves_and_ends_empty_also_after_an_error(cell, capfd):
    with pytest.raises(ZeroDivisionError):
        [1 / number for number in track([1, 0], description="runs")]
    assert cell.seen[0]["text/plain"].startswith("runs:   0%")
    assert cell.seen[-1] == {}
    assert capfd.readouterr() == ("", "")
