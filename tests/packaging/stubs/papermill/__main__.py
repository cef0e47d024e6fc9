"""papermill, but its notebook is measured at once: a finished session."""

import json
import sys
from pathlib import Path


def papermill() -> None:
    """Write the session where the parameters say, the executed notebook where papermill would."""
    _, executed, *options = sys.argv[1:]
    given = {options[i + 1]: options[i + 2] for i, word in enumerate(options) if word[1:] in "pr"}
    folder = Path(given["results_dir"], given["session"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "session.json").write_text(json.dumps(given), encoding="utf-8")
    Path(executed).write_text("{}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(None if "--prepare-only" in sys.argv else papermill())
