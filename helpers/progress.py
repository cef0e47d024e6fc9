"""Progress for what takes more than a moment: shown to a person, never stored in a notebook."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm


def someone_watches() -> bool:
    """Whether a person would see a progress bar: at a terminal, or in a live notebook.

    A notebook's kernel cannot tell JupyterLab from papermill or nbval, but for this: only a front
    end with a person before it allows input. Elsewhere a bar would end up in stored outputs.
    """
    return sys.stderr.isatty() or bool(getattr(_kernel(), "_allow_stdin", False))


def track(iterable: Iterable, total: int | None = None, description: str = "") -> Iterator[Any]:
    """Yield the items of `iterable`, with a bar that says how many are done where somebody watches.

    Parameters
    ----------
    total
        How many items to expect; by default the iterable's length, if it has one.
    """
    if not someone_watches():
        yield from iterable
        return
    with bar(iterable=iterable, total=total, desc=description) as items:
        yield from items


def bar(show: bool | None = None, **settings: Any) -> "Bar":
    """Make a tqdm bar that goes away when it is done.

    Parameters
    ----------
    show
        None shows it where somebody watches.
    settings
        tqdm's own, such as total, desc and unit.
    """
    show = someone_watches() if show is None else show
    in_cell = show and _kernel() is not None
    place = {"file": _CellOutput(), "ncols": 90} if in_cell else {"file": sys.stderr}
    return Bar(disable=not show, leave=False, **place, **settings)


class Bar(tqdm):
    """tqdm without its monitor thread, which would wake up during a measurement."""

    monitor_interval = 0


class _CellOutput:
    """Where tqdm writes in a notebook: one output of the cell, replaced by nothing at the end.

    tqdm.notebook would store a dead widget, and stderr keeps a red box after the bar is gone.
    """

    encoding = "utf-8"  # tqdm asks, and then draws with blocks instead of '#'

    def __init__(self) -> None:
        self._handle = None

    def write(self, text: str) -> None:
        from IPython.display import DisplayHandle

        text = text.strip()
        content = {"text/plain": text} if text else {}
        if self._handle is not None:
            self._handle.update(content, raw=True)
        elif text:
            self._handle = DisplayHandle()
            self._handle.display(content, raw=True)

    def flush(self) -> None:
        """Nothing is held back."""


def _kernel() -> Any:
    """The Jupyter kernel that this process is, or None; IPython is not imported to find out."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython.get_ipython() if ipython else None, "kernel", None)
