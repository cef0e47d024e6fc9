"""What a session found, read back from its folder.

python -m helpers.after.report SESSION            prints it
python -m helpers.after.report html SESSION       writes report.html there: one file, without code
python -m helpers.after.report markdown SESSION   writes report.md there: for an issue or a wiki
"""

import argparse
import os
import sys
from pathlib import Path

from helpers.results import PUBLISHED, ResultsError, StoredSession, read_session
from helpers.results.files import write_file

SHOWN = ["variant", "run", "clock", "lat_mean", "lat_p95", "host_p95", "gpu_p95", "accuracy"]
SHOWN += ["flags"]


def session_text(session: StoredSession) -> str:
    """The verdict, headline first, where the files are, and last the table of runs."""
    text = "\n".join(
        [
            *session.sentences,
            f"\nFichiers dans {session.folder} : {', '.join(session.files)}",
            f"CSV publié : {session.folder.parent / PUBLISHED}",
            f"\nSession {session.name}, jeu de données {session.dataset}, latences en ms",
            session.rows[SHOWN].to_string(
                index=False, float_format="%.4f", decimal=",", na_rep="-"
            ),
        ]
    )
    # A terminal obeys control characters, and these texts may come from anywhere.
    return "".join(c if c in "\n\N{NO-BREAK SPACE}" or c.isprintable() else "?" for c in text)


def write_report(session: StoredSession, form: str) -> Path:
    """Write report.html or report.md into the session's folder; returns its path."""
    from helpers.after.report.html import session_html  # nbconvert takes seconds to import
    from helpers.after.report.markdown import session_markdown

    if form == "html":
        return write_file(session.folder / "report.html", session_html(session).encode())
    return write_file(session.folder / "report.md", session_markdown(session).encode())


def main() -> None:
    """Print, or write, the report of the session named on the command line."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # what a locale cannot write ends no command
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("form", nargs="?", choices=("text", "html", "markdown"), default="text")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    try:
        session = read_session(given.folder)
        told = session_text(session) if given.form == "text" else write_report(session, given.form)
    except ResultsError as error:
        sys.exit(f"error: {error}")
    try:
        print(told, flush=True)
    except OSError:  # whoever reads it has closed the pipe; Python must not flush it again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
