"""`python -m venv`, but its Python is the tests' own; and where the install can be held up."""

import os
import sys
import time
from pathlib import Path


def reach(stage: str) -> None:
    """Tell that this stage of the install is reached, and stay there if HANG_AT says so."""
    if os.environ.get("HANG_AT") == stage:
        Path("reached").touch()
        time.sleep(60)


if __name__ == "__main__":
    python = Path(sys.argv[1], "bin", "python")
    python.parent.mkdir(parents=True, exist_ok=True)
    (python.parents[1] / f"made-{os.getpid()}").touch()
    reach("venv")
    python.unlink(missing_ok=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
