"""What a session found, read back from its folder.

python -m helpers.after.report SESSION            prints it
python -m helpers.after.report html SESSION       writes report.html there: one file, code folded
python -m helpers.after.report markdown SESSION   writes report.md there: for an issue or a wiki
"""

import argparse
import sys
from pathlib import Path

from helpers.after.report.session import FinishedSession, read_session
from helpers.results import PUBLISHED, ResultsError
from helpers.results.files import write_file

SHOWN = ["variant", "run", "clock", "lat_mean", "lat_p95", "host_p95", "gpu_p95", "accuracy"]
SHOWN += ["flags"]


def session_text(session: FinishedSession) -> str:
    """The table of runs, the verdict and where the files are, as plain text."""
    table = session.rows[SHOWN]
    return "\n".join(
        [
            f"Session {session.name}, jeu de données {session.dataset}, latences en ms",
            table.to_string(index=False, float_format="%.4f", decimal=",", na_rep="-"),
            "",
            *session.sentences,
            "",
            f"Fichiers dans {session.folder} : {', '.join(session.files)}",
            f"CSV publié : {session.folder.parent / PUBLISHED}",
        ]
    )


def write_report(session: FinishedSession, form: str) -> Path:
    """Write report.html or report.md into the session's folder; returns its path.

    Raises
    ------
    ResultsError
        For "html", there is no executed notebook in the folder; or it cannot be written to.
    """
    if form == "html":
        from helpers.after.report.html import (
            session_html,  # nbconvert and torch take seconds to import
        )

        return write_file(session.folder / "report.html", session_html(session).encode())
    from helpers.after.report.markdown import session_markdown

    return write_file(session.folder / "report.md", session_markdown(session).encode())


def main() -> None:
    """Print, or write, the report of the session named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("form", nargs="?", choices=("text", "html", "markdown"), default="text")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    try:
        session = read_session(given.folder)
        print(session_text(session) if given.form == "text" else write_report(session, given.form))
    except ResultsError as error:
        sys.exit(f"error: {error}")
