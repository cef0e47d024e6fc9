"""What a session found, read back from its folder.

python -m helpers.after.report SESSION            prints it
python -m helpers.after.report html SESSION       writes report.html there: one file, without code
python -m helpers.after.report markdown SESSION   writes report.md there: for an issue or a wiki

Everything in a session's folder may come from a stranger: of its texts the Markdown keeps tables,
lists and `plain words`; of the notebook only harmless elements are kept; the page loads nothing.
"""

import argparse
import html
import math
import os
import re
import sys
from pathlib import Path
from string import Template

import pandas as pd

from helpers.display.french import number, percent
from helpers.display.machine import fixed_conditions
from helpers.display.tables import markdown_table
from helpers.display.words import CLOCK_NAMES, DATASETS, labels
from helpers.results import PUBLISHED, ResultsError, StoredSession, read_session
from helpers.results.files import read_file, write_file

SHOWN = ["variant", "run", "clock", "lat_mean", "lat_p95", "host_p95", "gpu_p95", "accuracy"]
SHOWN += ["flags"]
LIVE = re.compile(r"(`[\w .+=-]+`)|\\\W|:(?=//)|[`\[\]\x00-\x09\x0b-\x1f]|<(?=\S)")
KINDS = ["image/png", "text/html", "text/markdown", "text/plain"]
ELEMENTS = {"a", "abbr", "b", "blockquote", "br", "caption", "code", "div", "em", "h1", "h2", "h3"}
ELEMENTS |= {"h4", "hr", "i", "img", "li", "ol", "p", "pre", "span", "strong", "style", "sub"}
ELEMENTS |= {"sup", "details", "summary", "table", "tbody", "td", "th", "thead", "tr", "ul", "wbr"}
ATTRIBUTES = {"id", "class", "align", "scope", "colspan", "rowspan", "alt", "src", "href"}
ADDRESSES = {"href": ("#", "https://", "http://"), "src": ("data:image/png;base64,",)}
PAGE = Template("""<!doctype html>
<html lang="fr"><head><meta charset="utf-8"><title>$title</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
 style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'">
<style>
  body { max-width: 64rem; margin: 1rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; }
  img { max-width: 100%; height: auto; }
  pre, .output_html { overflow-x: auto; }
  table { border-collapse: collapse; font-size: .9rem; }
  td, th { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: left; }
</style></head><body>
<main>$body</main>
</body></html>
""")


def session_text(session: StoredSession) -> str:
    """The verdict, headline first, where the files are, and last the table of runs."""
    settings = {"index": False, "float_format": "%.4f", "decimal": ",", "na_rep": "-"}
    text = "\n".join(
        [
            *session.sentences,
            f"\nFichiers dans {session.folder} : {', '.join(session.files)}",
            *(f"CSV publié : {path}" for path in session.folder.parent.glob(PUBLISHED)),
            f"\nSession {session.name}, jeu de données {session.dataset}, latences en ms",
            session.rows.reindex(columns=SHOWN).to_string(**settings),
        ]
    )
    # A terminal obeys control characters, and these texts may come from anywhere.
    return "".join(c if c in "\n\N{NO-BREAK SPACE}" or c.isprintable() else "?" for c in text)


def session_markdown(session: StoredSession) -> str:
    """Verdict, runs, fixed conditions and files, in French; names no folder of the machine."""
    headline, *sentences = session.sentences
    own = session.rows[session.rows["schedule"] == session.rows["schedule"].iloc[0]]  # the day's
    files = (name for name in session.files if not name.startswith("report."))
    parts = [
        f"# J1, session {session.name}",
        f"**{headline}**",
        "\n".join(f"- {sentence}" for sentence in sentences),
        f"Latences en ms. Entrées : **{DATASETS[session.dataset]}**.",
        markdown_table(pd.DataFrame(map(_run, own.to_dict("records")))),
        *(["**Variantes, mesurées à tour de rôle**"] if session.comparison.strip() else []),
        session.comparison,
        "**Conditions fixes**",
        markdown_table(fixed_conditions(session)),
        f"**Fichiers de la session** : {', '.join(files)}",
    ]
    return "\n\n".join(harmless(part.strip()) for part in parts if part.strip()) + "\n"


def harmless(text: str) -> str:
    """Markdown with its tables, lists and `plain words`, without links, images or HTML."""
    return LIVE.sub(lambda one: one[1] or f"&#{ord(one[0][-1])};", text).replace("&#96;", "\\`")


def _run(row: dict) -> dict[str, str]:
    low, high = (_or_dash(row[f"lat_p95_{end}"]) for end in ("low", "high"))
    codes = filter(None, row["flags"].split(";"))
    return {
        "Run": str(row["run"]),
        "Horloge": CLOCK_NAMES[row["clock"]],
        "Moyenne": number(row["lat_mean"]),
        "p95": number(row["lat_p95"]),
        "p95, intervalle à 95 %": "non estimable" if "-" in (low, high) else f"{low} – {high}",
        "p95 hôte": _or_dash(row["host_p95"]),
        "p95 GPU": _or_dash(row["gpu_p95"]),
        "Exactitude": "-" if math.isnan(row["accuracy"]) else percent(row["accuracy"], 4),
        "Signalements": labels(codes) or "aucun",
    }


def _or_dash(value: float) -> str:
    return "-" if math.isnan(value) else number(value)


def session_html(session: StoredSession) -> str:
    """The session's summary, then its one executed notebook (ResultsError without it), no code."""
    import bleach  # these take seconds, and printing needs none of them
    import nbformat
    from nbconvert import HTMLExporter
    from nbformat.v4 import new_markdown_cell, new_notebook

    found = sorted(session.folder.glob("*.ipynb"))
    if len(found) != 1:
        told = f"{session.folder} holds {len(found)} executed notebooks, one is needed"
        raise ResultsError(f"{told}: after papermill, `cp out.ipynb {session.folder}/`")
    hidden = dict.fromkeys(["exclude_input", "exclude_output_prompt", "exclude_anchor_links"], True)
    exporter = HTMLExporter(template_name="basic", **hidden)
    exporter.config.NbConvertBase.display_data_priority = KINDS
    try:
        notebook = nbformat.reads(read_file(found[0]).decode("utf-8"), as_version=4)
        printed = [o.get("text", "") for c in notebook.cells for o in c.get("outputs", ())]
        summary = new_markdown_cell(session_markdown(session))
        cells = new_notebook(cells=[summary, *notebook.cells])
        rendered, _ = exporter.from_notebook_node(cells)
    except Exception as error:  # nbformat raises what it meets in a file that is no notebook
        raise ResultsError(f"{found[0]} is no notebook ({error}): run the session again") from None
    own = f"session {session.rows['session'].iloc[0]}"
    if not any(f"{own}\n" in text for text in printed):
        raise ResultsError(f"{found[0]} does not print {own!r}: it is of another session")
    body = bleach.clean(rendered, ELEMENTS, _allowed, {"http", "https", "data"}, strip=True)
    return PAGE.substitute(title=html.escape(f"J1, session {session.name}"), body=body)


def _allowed(tag: str, name: str, value: str) -> bool:
    return name in ATTRIBUTES and value.startswith(ADDRESSES.get(name, ""))


def write_report(session: StoredSession, form: str) -> Path:
    """Write report.html or report.md into the session's folder; returns its path."""
    name, made = {"html": ("html", session_html), "markdown": ("md", session_markdown)}[form]
    return write_file(session.folder / f"report.{name}", made(session).encode())


def main() -> None:
    """Print, or write, the report of the session named on the command line."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # what a locale cannot write ends no command
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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


if __name__ == "__main__":
    main()
