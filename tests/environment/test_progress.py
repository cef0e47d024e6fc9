import sys
import threading
from types import SimpleNamespace

import pytest

from helpers.environment.progress import track


@pytest.fixture
def kernel(monkeypatch):
    """A live notebook's kernel."""
    found = SimpleNamespace(_allow_stdin=True)
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=found))
    return found


def test_nothing_is_shown_where_nobody_watches(kernel, monkeypatch, capfd):
    kernel._allow_stdin = False
    assert list(track(iter([3, 1, 2]), description="runs")) == [3, 1, 2]
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    assert list(track([3], description="runs")) == [3]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("place", ["cell", "terminal"])
def test_a_bar_is_drawn_and_wiped_also_after_an_error(kernel, monkeypatch, capsys, place):
    if place == "terminal":
        monkeypatch.setattr("IPython.get_ipython", lambda: None)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    before = threading.active_count()
    for _ in track(iter("ab"), total=2, description="runs"):
        assert threading.active_count() == before  # nothing wakes up between items
    with pytest.raises(ZeroDivisionError):
        [1 / number for number in track([1, 0], description="runs")]
    said, red = capsys.readouterr()
    assert "runs:   0%" in said
    assert said.rsplit("\r", 2)[1].strip() == red == ""
