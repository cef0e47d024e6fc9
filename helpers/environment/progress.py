"""Progress for what takes more than a moment: shown to a person, never stored in a notebook."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


class Bar(tqdm):
    """tqdm without its monitor thread, which would wake up during a measurement."""

    monitor_interval = 0


def track(
    iterable: Iterable | None = None, total: int | None = None, description="", **settings: Any
) -> Bar:
    """Go through `iterable` with a bar that is there only where, and while, somebody watches.

    A notebook's kernel cannot tell JupyterLab from papermill or nbval, but for this: only a front
    end with a person before it allows input. Elsewhere a bar would end up in stored outputs.
    """
    ipython = sys.modules.get("IPython")  # not imported to find out
    kernel = getattr(ipython.get_ipython() if ipython else None, "kernel", None)
    watched = sys.stdout.isatty() if kernel is None else getattr(kernel, "_allow_stdin", False)
    settings |= {"file": sys.stdout, "ncols": 90}  # stderr would leave a red box in a notebook
    return Bar(iterable, description, total, leave=False, disable=not watched, **settings)
