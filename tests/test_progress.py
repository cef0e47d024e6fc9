import io
import sys
import threading
from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell

from helpers import progress
from helpers.environment.progress import bar, someone_watches, track


@pytest.fixture
def terminal(monkeypatch):
    """What a person at a terminal was shown."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=screen, modules=sys.modules))
    return screen


@pytest.fixture
def cell(monkeypatch):
    """A live notebook's cell: its one output as the front end would show it, write by write."""
    shell = SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=True))
    monkeypatch.setattr(progress, "_kernel", lambda: shell.kernel)
    monkeypatch.setattr(InteractiveShell, "initialized", lambda: True)
    seen = []

    def publish(data, *_, update=False, transient=None, **__):
        assert update == bool(seen), "one output, made once and then replaced"
        assert transient["display_id"]
        seen.append(data)

    monkeypatch.setattr("IPython.core.display_functions.publish_display_data", publish)
    return seen


@pytest.mark.parametrize("watched", [True, False])
def test_in_a_notebook_progress_is_shown_only_to_a_person(monkeypatch, watched):
    shell = SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=watched))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert someone_watches() is watched


def test_at_a_terminal_progress_is_shown(terminal):
    assert someone_watches()


def test_headless_the_items_pass_and_nothing_is_said(capfd):
    assert list(track(iter([3, 1, 2]), description="runs")) == [3, 1, 2]
    with bar(total=2) as shown:
        shown.update(1)
    assert capfd.readouterr() == ("", "")


def test_at_a_terminal_the_bar_is_drawn_and_wiped(terminal):
    assert list(track([3, 1, 2], description="runs")) == [3, 1, 2]
    said = terminal.getvalue()
    assert "runs:   0%" in said
    assert said.rsplit("\r", 2)[1].strip() == ""


def test_a_total_may_be_given_for_what_has_no_length(terminal):
    assert list(track(iter("ab"), total=2)) == ["a", "b"]
    assert "0/2" in terminal.getvalue()


def test_in_a_cell_one_output_moves_and_ends_empty(cell, capfd):
    assert list(track("abc", description="runs")) == ["a", "b", "c"]
    assert cell[0]["text/plain"].startswith("runs:   0%")
    assert cell[-1] == {}
    assert all(set(data) <= {"text/plain"} for data in cell)
    assert capfd.readouterr() == ("", "")


def test_an_error_in_the_loop_takes_the_bar_away(cell):
    def failing():
        yield 1
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(track(failing(), total=3))
    assert cell[-1] == {}


def test_a_loop_that_is_left_takes_the_bar_away(cell):
    for _ in track("abc"):
        break
    assert cell[-1] == {}


def test_no_thread_wakes_up_between_items(terminal):
    before = threading.active_count()
    for _ in track("abc"):
        assert threading.active_count() == before
