"""Progress for what takes more than a moment: shown to a person, never stored in a notebook."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm


def track(iterable: Iterable, total: int | None = None, description: str = "") -> Iterator[Any]:
    """Yield the items of `iterable` (`total` of them) with a bar where somebody watches."""
    with bar(iterable=iterable, total=total, desc=description) as items:
        yield from items


def bar(**settings: Any) -> "Bar":
    """Make a tqdm bar that goes away when it is done; `settings` are tqdm's own.

    A notebook's kernel cannot tell JupyterLab from papermill or nbval, but for this: only a front
    end with a person before it allows input. Elsewhere a bar would end up in stored outputs.
    """
    ipython = sys.modules.get("IPython")  # not imported to find out
    kernel = getattr(ipython.get_ipython() if ipython else None, "kernel", None)
    place = sys.stderr if kernel is None else _CellOutput()
    watched = place.isatty() if kernel is None else getattr(kernel, "_allow_stdin", False)
    return Bar(disable=not watched, leave=False, file=place, ncols=90, **settings)


class Bar(tqdm):
    """tqdm without its monitor thread, which would wake up during a measurement."""

    monitor_interval = 0


class _CellOutput:
    """Where tqdm writes in a notebook: one output of the cell, replaced by nothing at the end.

    tqdm.notebook would store a dead widget, and stderr keeps a red box after the bar is gone.
    """

    encoding = "utf-8"  # tqdm asks, and then draws with blocks instead of '#'
    handle = None

    def write(self, text: str) -> None:
        from IPython.display import DisplayHandle

        content = {"text/plain": text.strip()} if text.strip() else {}
        if self.handle is not None:
            self.handle.update(content, raw=True)
        elif content:
            self.handle = DisplayHandle()
            self.handle.display(content, raw=True)

    def flush(self) -> None:
        """Nothing is held back."""
